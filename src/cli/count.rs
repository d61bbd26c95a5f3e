//! Numbers as people read them.

pub(super) use crate::report::span;

/// `1 partition`, `2 partitions`.
pub(super) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// `87 bytes`, `1.4 GiB`.
pub(super) fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    // In tenths of the next unit, rounded: 1023.96 KiB is 1.0 MiB.
    let mut tenths = u128::from(bytes) * 10;
    let mut unit = None;
    for next in units {
        if tenths < 10_235 {
            break;
        }
        tenths = (tenths + 512) / 1024;
        unit = Some(next);
    }
    match unit {
        None => count(bytes, "byte"),
        Some(unit) => format!("{}.{} {unit}", tenths / 10, tenths % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal_in_the_largest_unit_that_fits() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1 << 20, "1.0 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (1_503_238_553, "1.4 GiB"),
            (5 << 40, "5.0 TiB"),
            (5000 << 40, "5000.0 TiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
        assert_eq!((count(1, "tenant"), count(0, "tenant")), ("1 tenant".to_owned(), "0 tenants".to_owned()));
    }
}
