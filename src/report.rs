//! What the operator is told: one state per tenant, the same words in the journal, in `status`, in `doctor` and on
//! the page. CONTRACT SKELETON, bodies follow.
