//! Sets of methods as bits.

/// The methods nearly every route names; their bits are the same in every plan.
const COMMON: [&[u8]; 9] =
    [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"CONNECT"];

/// Any method: what a route without methods has.
pub(super) const ANY: u64 = u64::MAX;
/// The bit of a method that no route names: only [`ANY`] has it.
const UNNAMED: u64 = 1 << 63;
/// Methods that a plan may name besides the common ones.
pub(super) const MAX_OTHERS: usize = 63 - COMMON.len();

/// The methods that the routes of one plan name, each with its bit. Case matters
/// (RFC 9110 §9.1).
#[derive(Debug, Default)]
pub(super) struct Methods {
    others: Vec<Box<[u8]>>,
}

impl Methods {
    #[inline]
    pub(super) fn bit(&self, method: &[u8]) -> u64 {
        match method {
            b"GET" => 1,
            b"HEAD" => 1 << 1,
            b"POST" => 1 << 2,
            b"PUT" => 1 << 3,
            b"DELETE" => 1 << 4,
            b"PATCH" => 1 << 5,
            b"OPTIONS" => 1 << 6,
            b"TRACE" => 1 << 7,
            b"CONNECT" => 1 << 8,
            other => match self.others.iter().position(|known| **known == *other) {
                Some(at) => 1 << (COMMON.len() + at),
                None => UNNAMED,
            },
        }
    }

    /// The bit of a method that a route names; `None` past [`MAX_OTHERS`] unusual ones.
    pub(super) fn add(&mut self, method: &[u8]) -> Option<u64> {
        let bit = self.bit(method);
        if bit != UNNAMED {
            return Some(bit);
        }
        if self.others.len() == MAX_OTHERS {
            return None;
        }
        self.others.push(method.into());
        Some(self.bit(method))
    }

    /// The methods in a set, common ones first.
    pub(super) fn names(&self, set: u64) -> impl Iterator<Item = &[u8]> {
        let all = COMMON.into_iter().chain(self.others.iter().map(|other| &**other));
        all.enumerate().filter(move |(at, _)| set & 1 << at != 0).map(|(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_names_agree() {
        let mut methods = Methods::default();
        for name in COMMON {
            assert_eq!(methods.names(methods.bit(name)).collect::<Vec<_>>(), [name]);
        }
        assert_eq!(methods.bit(b"get"), UNNAMED);
        for i in 0..MAX_OTHERS {
            let name = format!("M{i}");
            let bit = methods.add(name.as_bytes()).unwrap();
            assert_eq!(methods.add(name.as_bytes()), Some(bit));
            assert_eq!(methods.names(bit).collect::<Vec<_>>(), [name.as_bytes()]);
        }
        assert_eq!(methods.add(b"ONE-MORE"), None);
        assert_eq!(methods.bit(b"ONE-MORE"), UNNAMED);
        assert_eq!(methods.add(b"M3"), Some(methods.bit(b"M3")));
    }
}
