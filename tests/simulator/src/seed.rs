//! Deterministic chance: one 64-bit seed from several parts.

use uuid::Uuid;

/// Mixes the parts into one seed (splitmix64's finaliser after each).
pub(crate) fn mix(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9e37_79b9_7f4a_7c15, |state, part| {
        let mut x = state.wrapping_mul(31).wrapping_add(*part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    })
}

/// A GUID that looks random, from a seed and a number.
pub(crate) fn guid(seed: u64, number: u64) -> Uuid {
    let bits = (u128::from(mix(&[seed, number, 1])) << 64) | u128::from(mix(&[seed, number, 2]));
    uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
}
