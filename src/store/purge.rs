//! Erasing one tenant: out of sight at once, its bytes off the disk in the background, and a receipt that stays.
//!
//! sled never gives space back and keeps in its log what was removed, so a partition that held anything of the tenant is
//! written anew without it, beside the old one, and takes its place. How long that takes depends on how much others have
//! stored; nobody waits for it.
//!
//! # What is old and what is new
//!
//! A purge is a *cut* between two partitions. Asked for, it is written down with the ordinal of the newest partition, its
//! `through`; the writer begins the next one, without the tenant's head. What a partition up to the cut holds of the
//! tenant is old: hidden for good, by whoever and whenever it is read ([`veil`]). What stands behind the cut came later: a
//! tenant that is added again has a chain that begins at its genesis, and nothing that is stored before is known of it.
//! Its numbers go on behind those that it had, because cursors stand on numbers; the record keeps the last of each.
//! A body that was being received at the cut is refused when it is complete ([`StoreError::Purged`]), and what it had
//! sent ahead is not taken along.
//!
//! # On the disk
//!
//! ```text
//! content/
//!     purges                  JSON: the purges, oldest first                          (record)
//!     2026-11-22.001/
//!         partition           its label says what was erased from it, and by which purge
//!     .purging-2026-11-22.001 the partition, being written anew: nobody's
//!     .purged-2026-11-22.001  the same, whole and durable: it is the partition from now on
//!     .dropping-…             the old one, on its way out
//! ```
//!
//! A store without `purges` has none. A program that does not know the file shows again what has not been erased yet.
//!
//! # In which order
//!
//! | | what is done | after a crash behind it |
//! |---|---|---|
//! | 1 | the record, with the cut | the tenant is hidden; 2 at opening, before anybody sees the state |
//! | 2 | its rows leave the state; the record says so | 3 before the next blob is stored |
//! | 3 | the next partition is begun | **acknowledged**; the background goes on from here |
//! | 4 | the state is copied to a new generation, so that no log holds its rows | the copy again |
//! | 5 | for each partition up to the cut, newest first: `.purging-P` is filled, read back and compared, made durable | it is removed, and P written again |
//! | 6 | it is renamed to `.purged-P` | 7 |
//! | 7 | P is renamed to `.dropping-P`, `.purged-P` to P | if there is no P, `.purged-P` becomes P; then `.dropping-P` is removed |
//! | 8 | the record says what was erased from P | found in the label of P |
//! | 9 | when none is left: the receipt, in the record and in the journal | again |
//!
//! # Who reads meanwhile
//!
//! The two renames happen while nobody can open the partition; who has the old one open reads it to the end, without the
//! tenant, since the veil is asked for every row. The old files are gone when the last of those readers is. The next
//! partition waits ten minutes for them, then goes on; they get no error, because what others have stored is not dropped.
//! Who copies the files for a backup sees that they have changed, and copies them again.
//!
//! # What is in the new partition
//!
//! Every row of the others, byte for byte and under the same key: headers, indices, parts, ledgers, heads; so chains,
//! numbers and the names of copies stand as they stood. Not the tenant's, nor parts that belong to no blob. The state's
//! snapshot without its rows. The sums, less what went. The index of what was seen is made anew from what is left: its
//! hashes are keyed, but who has the key could ask it whether an id was the tenant's. The label keeps, of each erased
//! tenant, the links at which its chain stood at the partition's beginning and end: a digest tells nothing of what it is a
//! digest of, and with these the digests that the journal has of all heads can still be compared ([`verify`](super::verify)).
//!
//! # What stays, and the receipt says so
//!
//! Partitions that cannot be read (they stay where they are, marked and hidden, and are tried again at each start), what was
//! moved to `aside/`, and backups that were made before; a backup that is made after holds none of it, since the files are
//! others. The record itself: the tenant's id, times, counts, last numbers and links. Records of others that name the
//! tenant are theirs.
//!
//! **Invariants:** nothing of the tenant is shown once it is acknowledged; no row of another tenant is changed or lost by
//! whatever crash or error; a partition is replaced only by one that was read back from the disk and has all that is to
//! stay; a purge ends with a receipt. While there is less room than the partition takes and the reserve, it waits.
