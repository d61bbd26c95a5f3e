//! A text that must never be seen.
//!
//! **Invariant:** no `Display`, a `Debug` that says nothing, no `Serialize`; the memory is wiped when it is dropped.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

/// A client secret, a password, a bearer token.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// A text that nobody can guess: 256 random bits, in letters, digits, `-` and `_`.
    ///
    /// # Panics
    /// If the operating system has no randomness, without which nothing here is safe.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(bytes.as_mut()).expect("the operating system gives random bytes");
        Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Whether it is this text; takes as long whatever the answer.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        verify_slices_are_equal(self.expose().as_bytes(), text.as_bytes()).is_ok()
    }

    /// The text itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_random_is_not_the_same_twice() {
        let (one, other) = (Secret::random(), Secret::random());
        assert_eq!(one.expose().len(), 43);
        assert!(one.is(one.expose()) && !one.is(other.expose()) && !one.is(""));
    }

    #[test]
    fn debug_says_nothing() {
        let secret = Secret::from("hunter2".to_owned());
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "[redacted] Some([redacted])");
        assert_eq!(secret.expose(), "hunter2");
    }
}
