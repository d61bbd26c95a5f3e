//! The customers' pages: plain HTML, one style sheet, nothing of anybody else. The page that changes by itself has a script of
//! ours, which only asks for it again; without scripts, the browser does.
//!
//! **Invariants:** whatever comes from outside is escaped (by `maud`); no page says what the customer may not know: another
//! tenant's id, a token, a code.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::consent::ending::{Ending, Words};
use crate::consent::journey::{Journey, Reached};
use crate::consent::welcome::Welcome;

/// The style sheet.
pub(super) const STYLE: &str = include_str!("style.css");
/// What keeps the page of progress up to date.
pub(super) const SCRIPT: &str = include_str!("progress.js");
/// How often a page that changes by itself is asked for again, in seconds.
const AGAIN: u8 = 4;

/// What all pages have in common.
struct Page<'a> {
    title: &'a str,
    again: bool,
    organisation: Option<&'a str>,
    contact: Option<&'a str>,
}

impl Page<'_> {
    fn around(&self, body: &Markup) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="robots" content="noindex";
                    @if self.again {
                        noscript { meta http-equiv="refresh" content=(AGAIN); }
                        script src="/assets/progress.js" data-again=(AGAIN) defer {}
                    }
                    title { (self.title) }
                    link rel="stylesheet" href="/assets/style.css";
                }
                body {
                    main { (body) }
                    @if self.organisation.is_some() || self.contact.is_some() {
                        footer {
                            p {
                                @if let Some(organisation) = self.organisation { (organisation) ". " }
                                @if let Some(contact) = self.contact { "Questions? Ask " (contact) "." }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The page behind a link: who asks, for what, and why. Its form goes to the page's own address, which stands nowhere in it: a
/// page that is kept or shown to others is no link.
pub(super) fn welcome(welcome: &Welcome) -> Markup {
    let Welcome { customer, organisation, contact, permissions, sign_in_at, expires } = welcome;
    let who = organisation.as_deref().unwrap_or("Whoever sent you this link");
    let page = Page {
        title: "Connect your audit log",
        again: false,
        organisation: organisation.as_deref(),
        contact: contact.as_deref(),
    };
    page.around(&html! {
        h1 { "Connect your audit log" }
        p { strong { (who) } " asks " strong { (customer) } " for permission to collect its Microsoft 365 audit log." }
        h2 { "What is asked for" }
        ul {
            @for permission in permissions {
                li { strong { (permission.name) } " (" (permission.api) "), " (permission.why) "." }
            }
        }
        p.quiet {
            "The access is for reading only. Microsoft shows the whole list before you consent, and you can withdraw it at \
             any time in Entra, under Enterprise applications."
        }
        h2 { "What happens next" }
        ol {
            li { "You sign in at Microsoft (" code { (sign_in_at) } "), as a Global Administrator. Your password is never seen here." }
            li { "Microsoft asks you to consent for your organisation." }
            li { "You come back here, and see the connection come alive." }
        }
        form method="post" {
            button type="submit" { "Sign in at Microsoft" }
        }
        p.quiet { "This link is good once, until " (expires.strftime("%-d %B %Y, %H:%M")) " UTC." }
    })
}

/// The page of a way that has ended before its end.
pub(super) fn ending(ending: &Ending, organisation: Option<&str>, contact: Option<&str>) -> Markup {
    let Words { title, text, next } = ending.words();
    let told = ending.trouble();
    let code = told.as_ref().and_then(|trouble| trouble.code.as_deref());
    let correlation = told.as_ref().and_then(|trouble| trouble.correlation_id.as_deref());
    let page = Page { title, again: false, organisation, contact };
    page.around(&html! {
        h1 { (title) }
        p { (text) }
        (what_next(next))
        @if code.is_some() || correlation.is_some() {
            p.quiet {
                @if let Some(code) = code { "Microsoft's code: " code { (code) } ". " }
                @if let Some(correlation) = correlation { "Correlation id: " code { (correlation) } "." }
            }
        }
    })
}

/// The page that the browser watches which has consented.
pub(super) fn progress(journey: &Journey) -> Markup {
    let Journey { customer, account, organisation, contact, steps, words, goes_on } = journey;
    let page = Page {
        title: words.title,
        again: *goes_on,
        organisation: organisation.as_deref(),
        contact: contact.as_deref(),
    };
    page.around(&html! {
        h1 id="title" { (words.title) }
        p.quiet {
            (customer)
            @if let Some(account) = account { ", signed in as " (account) }
        }
        p id="told" role="status" { (words.text) }
        ul.steps id="steps" {
            @for (step, reached) in steps {
                @let (mark, class, said) = mark(*reached);
                li { span class={ "mark " (class) } aria-hidden="true" { (PreEscaped(mark)) } span { (step) span.quiet { (said) } } }
            }
        }
        div id="next" { (what_next(words.next)) }
    })
}

/// The page of the address itself.
pub(super) fn front(organisation: Option<&str>, contact: Option<&str>) -> Markup {
    let page = Page { title: "Connect your audit log", again: false, organisation, contact };
    page.around(&html! {
        h1 { "Connect your audit log" }
        p { "Here, administrators connect the Microsoft 365 audit log of their organisation, by a link that they were sent." }
        (what_next("Open the link in the message that you were sent."))
    })
}

/// The page of what is not here.
pub(super) fn nothing(organisation: Option<&str>, contact: Option<&str>) -> Markup {
    let page = Page { title: "There is nothing here", again: false, organisation, contact };
    page.around(&html! {
        h1 { "There is nothing here" }
        p { "The address leads nowhere." }
        (what_next("Open the whole link from the message that you were sent."))
    })
}

fn what_next(next: &str) -> Markup {
    html! { div.next { p { (next) } } }
}

/// How a step is marked, for those who see and for those who hear.
const fn mark(reached: Reached) -> (&'static str, &'static str, &'static str) {
    match reached {
        Reached::Yes => ("&#10003;", "good", ""),
        Reached::Soon => ("&#8230;", "", " (under way)"),
        Reached::NotYet => ("&#183;", "quiet", " (not yet)"),
        Reached::No => ("&#10007;", "bad", " (not so far)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Trouble;

    const HOSTILE: &str = "<script>alert('x')</script>&\"";

    #[test]
    fn what_comes_from_outside_is_text() {
        let journey = Journey {
            customer: HOSTILE.to_owned(),
            account: Some(HOSTILE.to_owned()),
            organisation: Some(HOSTILE.to_owned()),
            contact: Some(HOSTILE.to_owned()),
            steps: vec![("You signed in", Reached::Yes)],
            words: Words { title: "Done", text: HOSTILE.to_owned(), next: "Nothing." },
            goes_on: false,
        };
        let welcome_page = Welcome {
            customer: HOSTILE.to_owned(),
            organisation: None,
            contact: None,
            permissions: Vec::new(),
            sign_in_at: HOSTILE.to_owned(),
            expires: jiff::Timestamp::UNIX_EPOCH,
        };
        let refused = Ending::Refused(Box::new(Trouble {
            code: Some(HOSTILE.to_owned()),
            correlation_id: Some(HOSTILE.to_owned()),
            ..Trouble::for_operator("k", HOSTILE, HOSTILE)
        }));
        for page in [
            progress(&journey),
            welcome(&welcome_page),
            ending(&refused, Some(HOSTILE), Some(HOSTILE)),
            front(Some(HOSTILE), Some(HOSTILE)),
        ] {
            let text = page.into_string();
            assert!(!text.contains("<script") && text.contains("&lt;script&gt;"), "{text}");
            assert!(!text.contains("http://") && !text.contains("https://"), "nothing of anybody else: {text}");
        }
    }

    #[test]
    fn a_page_that_goes_on_asks_again_and_no_other_does() {
        let mut journey = Journey {
            customer: "Contoso".to_owned(),
            account: None,
            organisation: None,
            contact: None,
            steps: Vec::new(),
            words: Words { title: "Setting up", text: "Wait.".to_owned(), next: "Wait." },
            goes_on: true,
        };
        assert!(progress(&journey).into_string().contains("http-equiv=\"refresh\" content=\"4\""));
        journey.goes_on = false;
        assert!(!progress(&journey).into_string().contains("http-equiv"));
    }
}
