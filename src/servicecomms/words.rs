//! The old words for Graph's values. Graph writes them in more than one case, so that they are compared without it.

/// Graph's value, the old one, and what it was called on pages and in messages; the worst first. The order is our own.
const STATUSES: [(&str, &str, &str); 10] = [
    ("serviceInterruption", "ServiceInterruption", "Service interruption"),
    ("serviceDegradation", "ServiceDegradation", "Service degradation"),
    ("restoringService", "RestoringService", "Restoring service"),
    ("extendedRecovery", "ExtendedRecovery", "Extended recovery"),
    ("investigating", "Investigating", "Investigating"),
    ("investigationSuspended", "InvestigationSuspended", "Investigation suspended"),
    ("serviceRestored", "ServiceRestored", "Service restored"),
    ("postIncidentReviewPublished", "PostIncidentReportPublished", "Post-incident report published"),
    ("falsePositive", "FalsePositive", "False positive"),
    ("serviceOperational", "ServiceOperational", "Normal service"),
];
/// Where a state stands that the old API did not have: behind those that surely are trouble.
const OTHERS: usize = 5;

/// Graph's categories of posts, and the old ones.
const CATEGORIES: [(&str, &str); 3] = [
    ("preventOrFixIssue", "Prevent or Fix Issues"),
    ("planForChange", "Plan for Change"),
    ("stayInformed", "Stay Informed"),
];

/// The old value of a state; one that the old API did not have keeps Graph's name, in the old manner.
#[must_use]
pub fn status(graph: &str) -> String {
    known(graph).map_or_else(|| pascal(graph), |at| STATUSES[at].1.to_owned())
}

/// What people called that state.
#[must_use]
pub fn status_display(graph: &str) -> String {
    known(graph).map_or_else(|| sentence(graph), |at| STATUSES[at].2.to_owned())
}

/// How bad a state is: 0 is the worst.
#[must_use]
pub fn rank(graph: &str) -> usize {
    known(graph).map_or(OTHERS * 2 - 1, |at| at * 2)
}

/// The old category of a post.
#[must_use]
pub fn category(graph: &str) -> String {
    let known = CATEGORIES.iter().find(|(name, _)| name.eq_ignore_ascii_case(graph));
    known.map_or_else(|| sentence(graph), |(_, old)| (*old).to_owned())
}

/// `incident` becomes `Incident`.
#[must_use]
pub fn pascal(graph: &str) -> String {
    let mut letters = graph.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn known(graph: &str) -> Option<usize> {
    STATUSES.iter().position(|(name, ..)| name.eq_ignore_ascii_case(graph))
}

/// `mitigatedExternal` becomes `Mitigated external`.
fn sentence(graph: &str) -> String {
    let mut told = String::new();
    for letter in pascal(graph).chars() {
        if letter.is_uppercase() && !told.is_empty() {
            told.push(' ');
            told.extend(letter.to_lowercase());
        } else {
            told.push(letter);
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_their_old_names_whatever_their_case() {
        for (graph, old, display) in [
            ("serviceOperational", "ServiceOperational", "Normal service"),
            ("ServiceRestored", "ServiceRestored", "Service restored"),
            ("postIncidentReviewPublished", "PostIncidentReportPublished", "Post-incident report published"),
            ("verifyingService", "VerifyingService", "Verifying service"),
            ("mitigatedExternal", "MitigatedExternal", "Mitigated external"),
            ("", "", ""),
        ] {
            assert_eq!((status(graph).as_str(), status_display(graph).as_str()), (old, display));
        }
    }

    #[test]
    fn the_worst_is_first() {
        let order = ["serviceInterruption", "ServiceDegradation", "investigating", "new", "serviceRestored"];
        assert!(order.windows(2).all(|pair| rank(pair[0]) < rank(pair[1])));
        assert!(rank("new") < rank("serviceOperational"));
    }

    #[test]
    fn categories_have_their_old_names() {
        assert_eq!(category("StayInformed"), "Stay Informed");
        assert_eq!(category("somethingElse"), "Something else");
    }
}
