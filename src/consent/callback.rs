//! What a browser brings back from Microsoft. Pure: a query comes in.
//!
//! It is a hint and no proof: anybody can type it. What it says is used to look for the sign-in that it belongs to, to
//! redeem a code, and to tell people what went wrong; a tenant that it names is compared with the one that was signed for.
//!
//! An error may come with `admin_consent=True`, without a `tenant`, and without a description: only what has no error, says
//! `True` and names a tenant is consent ("Admin consent on the Microsoft identity platform").

use std::collections::HashMap;

use url::form_urlencoded;

use crate::content::TenantId;
use crate::secret::Secret;

/// More parameters than any answer has.
const MOST: usize = 30;
/// Longer than any answer's query.
const LONGEST: usize = 16 * 1024;

/// A query in which every name occurs once.
pub(super) struct Callback(HashMap<String, String>);

/// Why a query is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Odd;

/// Microsoft says that it did not come about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// OAuth's word for it.
    pub(super) error: String,
    /// Entra's codes in the description.
    pub(super) codes: Vec<u32>,
    /// The person has pressed *Cancel*.
    pub(super) cancelled: bool,
}

impl Callback {
    /// Reads a query. One in which a name occurs twice is made by somebody else than Microsoft.
    pub(super) fn read(query: &str) -> Result<Self, Odd> {
        if query.len() > LONGEST {
            return Err(Odd);
        }
        let mut parameters = HashMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if parameters.len() == MOST || parameters.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(Odd);
            }
        }
        Ok(Self(parameters))
    }

    /// What binds it to a sign-in.
    pub(super) fn state(&self) -> Option<&str> {
        self.text("state")
    }

    /// The code of a sign-in.
    pub(super) fn code(&self) -> Result<Option<Secret>, Refused> {
        self.refused()?;
        Ok(self.text("code").map(|code| code.to_owned().into()))
    }

    /// The tenant whose administrator has consented, as the query says.
    pub(super) fn consented(&self) -> Result<Option<TenantId>, Refused> {
        self.refused()?;
        let says_so = self.text("admin_consent").is_some_and(|said| said.eq_ignore_ascii_case("true"));
        Ok(self.text("tenant").and_then(|tenant| tenant.parse().ok()).filter(|_| says_so))
    }

    fn refused(&self) -> Result<(), Refused> {
        let Some(error) = self.0.get("error") else { return Ok(()) };
        let description = self.text("error_description").unwrap_or_default();
        let codes = codes(description);
        let cancelled = self.text("error_subcode") == Some("cancel")
            || description.to_ascii_lowercase().contains("canceled the request");
        Err(Refused { error: error.chars().filter(|c| !c.is_control()).take(60).collect(), codes, cancelled })
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }
}

/// The numbers that follow `AADSTS` in a description.
fn codes(description: &str) -> Vec<u32> {
    let after = description.split("AADSTS").skip(1);
    let number = |text: &str| {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        text.get(..digits)?.parse().ok()
    };
    after.filter_map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "11111111-2222-3333-4444-555555555555";

    fn consented(query: &str) -> Result<Option<TenantId>, Refused> {
        Callback::read(query).unwrap_or_else(|Odd| panic!("{query}")).consented()
    }

    #[test]
    fn consent_is_what_has_no_error_says_true_and_names_a_tenant() {
        let tenant: TenantId = TENANT.parse().unwrap();
        for (query, expected) in [
            (format!("admin_consent=True&tenant={TENANT}&scope=x&state=s"), Some(tenant)),
            (format!("admin_consent=true&tenant={TENANT}"), Some(tenant)),
            (format!("admin_consent=False&tenant={TENANT}"), None),
            (format!("tenant={TENANT}&state=s"), None),
            ("admin_consent=True&state=s".to_owned(), None),
            ("admin_consent=True&tenant=contoso.example".to_owned(), None),
            ("admin_consent=True&tenant=".to_owned(), None),
        ] {
            assert_eq!(consented(&query), Ok(expected), "{query}");
        }
    }

    #[test]
    fn an_error_is_one_whatever_else_is_said() {
        let refused = |error: &str, codes: &[u32], cancelled| {
            Err(Refused { error: error.to_owned(), codes: codes.to_owned(), cancelled })
        };
        for (query, expected) in [
            (
                "error=access_denied&error_description=AADSTS65004%3a+User+declined+to+consent&admin_consent=True&state=s",
                refused("access_denied", &[65004], false),
            ),
            ("error=access_denied&error_subcode=cancel&state=s", refused("access_denied", &[], true)),
            (
                "error=permission_denied&error_description=The+admin+canceled+the+request",
                refused("permission_denied", &[], true),
            ),
            (
                "error=consent_required&error_description=AADSTS65004%3a+x+AADSTS90094&tenant=11111111-2222-3333-4444-555555555555&admin_consent=True",
                refused("consent_required", &[65004, 90094], false),
            ),
            ("error=&admin_consent=True&tenant=11111111-2222-3333-4444-555555555555", refused("", &[], false)),
            ("error=x&error_description=AADSTS", refused("x", &[], false)),
            ("error=x&error_description=AADSTS99999999999999", refused("x", &[], false)),
        ] {
            assert_eq!(consented(query), expected, "{query}");
            let code = Callback::read(&format!("{query}&code=c")).unwrap_or_else(|Odd| panic!("{query}")).code();
            assert_eq!(code.map(|_| ()), expected.map(|_| ()), "{query}");
        }
    }

    #[test]
    fn a_query_that_microsoft_would_not_write_is_odd() {
        for query in ["state=a&state=b", "code=1&state=s&code=2"] {
            assert!(Callback::read(query).is_err(), "{query}");
        }
        let many: Vec<_> = (0..=MOST).map(|n| format!("a{n}=b")).collect();
        assert!(Callback::read(&many.join("&")).is_err());
        assert!(Callback::read(&format!("code={}", "x".repeat(LONGEST))).is_err());
        let read = Callback::read("code=c&state=%20s&session_state=x").unwrap_or_else(|Odd| panic!("it is sound"));
        assert_eq!(read.state(), Some(" s"));
        assert_eq!(read.code().unwrap().unwrap().expose(), "c");
        assert!(Callback::read("state=&code=").is_ok_and(|read| read.state().is_none()));
    }
}
