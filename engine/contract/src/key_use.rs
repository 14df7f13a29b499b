//! That an API key was used, as a shard tells control: through its ring, among the records.

/// A use of an API key that stands in the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// SHA-256 of the key.
    pub digest: [u8; 32],
    /// Seconds since the Unix epoch.
    pub used_s: u64,
}

/// Tells a use from a [`Record`](crate::Record), whose formats count up from 1.
const TAG: u8 = 0xA0;

impl KeyUse {
    /// Bytes of every use.
    pub const LEN: usize = 41;

    pub fn encode(&self) -> [u8; KeyUse::LEN] {
        let mut out = [TAG; KeyUse::LEN];
        out[1..9].copy_from_slice(&self.used_s.to_le_bytes());
        out[9..].copy_from_slice(&self.digest);
        out
    }

    /// Reads what [`KeyUse::encode`] wrote. `None` for any other bytes.
    pub fn decode(bytes: &[u8]) -> Option<KeyUse> {
        let (&TAG, rest) = bytes.split_first()? else { return None };
        let (used_s, digest) = rest.split_first_chunk()?;
        Some(KeyUse { digest: digest.try_into().ok()?, used_s: u64::from_le_bytes(*used_s) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Record;

    proptest! {
        #[test]
        fn a_use_is_read_as_it_was_written(digest: [u8; 32], used_s: u64) {
            let used = KeyUse { digest, used_s };
            prop_assert_eq!(KeyUse::decode(&used.encode()), Some(used));
            prop_assert!(Record::decode(&used.encode()).is_none());
        }

        #[test]
        fn other_bytes_are_no_use(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let read = KeyUse::decode(&bytes);
            prop_assert!(read.is_none_or(|used| used.encode()[..] == bytes[..]));
        }
    }

    #[test]
    fn a_record_is_no_use() {
        let mut bytes = [0; 256];
        let length = Record::default().encode_into(&mut bytes).unwrap();
        assert_eq!(KeyUse::decode(&bytes[..length]), None);
        let whole = KeyUse { digest: [1; 32], used_s: 2 }.encode();
        assert_eq!(KeyUse::decode(&whole[..KeyUse::LEN - 1]), None);
    }
}
