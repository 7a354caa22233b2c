//! The record of the configuration in force as ConfigMaps: compressed, and split where it is larger than one may be.
use std::{collections::BTreeMap, io::Read as _};

use flate2::{Compression, read::GzDecoder, read::GzEncoder};
use sha2::{Digest as _, Sha256};

/// Name of the first ConfigMap; the others have a number behind it.
pub const NAME: &str = "ferrocast-in-force";
/// Largest part, octets. A ConfigMap may hold 1 MiB (1,048,576); this leaves room for its metadata.
pub const PART_LEN_MAX: usize = 900 * 1024;
/// Most parts: a hundred times what ten thousand objects take. More is no configuration.
pub const PARTS_MAX: usize = 32;
/// Largest record when decompressed, octets: a compressed bomb must not take the speaker's memory.
const RECORD_LEN_MAX: u64 = 64 * 1024 * 1024;
/// Key of the compressed octets.
pub const DATA: &str = "part";
/// Key of the digest of the whole, the same in all parts, and how many there are: `<sha-256>/<count>`.
pub const WHOLE: &str = "whole";

/// What one ConfigMap holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Digest and number of parts.
    pub whole: String,
    /// Octets.
    pub data: Vec<u8>,
}

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReadError {
    /// The parts are of different versions, or some are missing: more will come.
    #[error("parts are missing or of different versions")]
    Incomplete,
    /// Not what we wrote.
    #[error("it cannot be decompressed, or is larger than {RECORD_LEN_MAX} octets")]
    Broken,
}

/// Name of part number `index`.
#[must_use]
pub fn name(base: &str, index: usize) -> String {
    if index == 0 { base.to_owned() } else { format!("{base}-{index}") }
}

/// Name of the first ConfigMap of the installation for Services of `class`.
#[must_use]
pub fn base_name(class: Option<&str>) -> String {
    match class {
        None => NAME.to_owned(),
        // A class may hold characters that a name may not.
        Some(class) => format!("{NAME}-of-{}", &hex(&Sha256::digest(class))[..12]),
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Splits a record into parts; `None` if there would be too many.
#[must_use]
pub fn split(record: &[u8]) -> Option<Vec<Part>> {
    let mut compressed = Vec::new();
    // Reading from a slice into a vector does not fail.
    GzEncoder::new(record, Compression::default()).read_to_end(&mut compressed).ok()?;
    let chunks: Vec<&[u8]> = compressed.chunks(PART_LEN_MAX).collect();
    let whole = format!("{}/{}", hex(&Sha256::digest(&compressed)), chunks.len());
    (chunks.len() <= PARTS_MAX)
        .then(|| chunks.into_iter().map(|data| Part { whole: whole.clone(), data: data.to_vec() }).collect())
}

/// Puts the parts of one version together, by their index.
///
/// # Errors
/// [`ReadError`].
pub fn join(parts: &BTreeMap<usize, Part>) -> Result<Vec<u8>, ReadError> {
    let first = parts.get(&0).ok_or(ReadError::Incomplete)?;
    let (digest, count) = first.whole.split_once('/').ok_or(ReadError::Broken)?;
    let count: usize = count.parse().ok().filter(|n| (1..=PARTS_MAX).contains(n)).ok_or(ReadError::Broken)?;
    let mut compressed = Vec::new();
    for index in 0..count {
        let part = parts.get(&index).filter(|part| part.whole == first.whole).ok_or(ReadError::Incomplete)?;
        compressed.extend_from_slice(&part.data);
    }
    if hex(&Sha256::digest(&compressed)) != digest {
        return Err(ReadError::Incomplete);
    }
    let mut record = Vec::new();
    let mut decoder = GzDecoder::new(&compressed[..]).take(RECORD_LEN_MAX + 1);
    decoder.read_to_end(&mut record).map_err(|_| ReadError::Broken)?;
    if record.len() as u64 > RECORD_LEN_MAX { Err(ReadError::Broken) } else { Ok(record) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(parts: Vec<Part>) -> BTreeMap<usize, Part> {
        parts.into_iter().enumerate().collect()
    }

    /// Octets that do not compress.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let step = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        };
        (0..len).map(step).collect()
    }

    #[test]
    fn record_survives_split_and_join() {
        for record in [vec![], b"{}".to_vec(), noise(PART_LEN_MAX * 2 + 5)] {
            let parts = split(&record).unwrap();
            assert!(parts.iter().all(|part| part.data.len() <= PART_LEN_MAX));
            assert_eq!(join(&numbered(parts)).unwrap(), record);
        }
        assert_eq!(split(&noise(PART_LEN_MAX * 2 + 5)).unwrap().len(), 3);
    }

    #[test]
    fn parts_of_two_versions_or_too_few_are_not_joined() {
        let (old, new) = (split(&noise(PART_LEN_MAX + 9)).unwrap(), split(&noise(PART_LEN_MAX + 7)).unwrap());
        let mixed = [(0, new[0].clone()), (1, old[1].clone())].into();
        assert_eq!(join(&mixed), Err(ReadError::Incomplete));
        assert_eq!(join(&[(0, new[0].clone())].into()), Err(ReadError::Incomplete));
        assert_eq!(join(&[(1, new[1].clone())].into()), Err(ReadError::Incomplete));
        let left_over = [(0, split(b"x").unwrap()[0].clone()), (1, old[1].clone())].into();
        assert_eq!(join(&left_over).unwrap(), b"x", "a part that is left over from a larger record does no harm");
    }

    #[test]
    fn what_we_did_not_write_is_refused() {
        let broken = |whole: &str| join(&[(0, Part { whole: whole.to_owned(), data: vec![1, 2] })].into());
        assert_eq!(broken("x"), Err(ReadError::Broken));
        assert_eq!(broken("abc/99"), Err(ReadError::Broken));
        let digest = hex(&Sha256::digest([1, 2]));
        assert_eq!(broken(&format!("{digest}/1")), Err(ReadError::Broken));
    }

    #[test]
    fn each_class_has_a_record_of_its_own() {
        assert_eq!(base_name(None), "ferrocast-in-force");
        assert_ne!(base_name(Some("a/b")), base_name(Some("a/c")));
        assert_eq!(name(&base_name(None), 2), "ferrocast-in-force-2");
    }
}
