//! Which coding a client gets (RFC 9110 §12.5.3).

use super::Coding;

/// The coding that the client likes best, of `ours` in the order in which we do; `None`: identity.
/// `fields`: the values of all its `Accept-Encoding` fields.
pub fn choose<'v>(fields: impl IntoIterator<Item = &'v [u8]>, ours: &[Coding]) -> Option<Coding> {
    let mut weights = [None; 4];
    let (mut identity, mut any) = (None, None);
    for value in fields {
        for item in value.split(|byte| *byte == b',') {
            let mut parts = item.split(|byte| *byte == b';');
            let name = parts.next().unwrap_or_default().trim_ascii();
            let weight = match parts.next() {
                Some(parameter) => weight(parameter.trim_ascii()),
                None => 1000,
            };
            if name == b"*" {
                any = Some(weight);
            } else if name.eq_ignore_ascii_case(b"identity") {
                identity = Some(weight);
            } else if let Some(coding) = Coding::named(name) {
                weights[coding as usize] = Some(weight);
            }
        }
    }
    let of = |coding: &Coding| weights[*coding as usize].or(any).unwrap_or(0);
    let mut best: Option<(Coding, u16)> = None;
    for coding in ours {
        let weight = of(coding);
        if weight > best.map_or(0, |(_, best)| best) {
            best = Some((*coding, weight));
        }
    }
    // Identity that is not spoken of is as good as anything; what is asked for goes before it.
    best.filter(|(_, weight)| *weight >= identity.unwrap_or(0)).map(|(coding, _)| coding)
}

/// The same without codings that cannot be undone here, for an answer that has to be read; `None`: there are
/// none of them.
pub fn known<'v>(fields: impl IntoIterator<Item = &'v [u8]>) -> Option<Vec<u8>> {
    let mut left: Vec<&[u8]> = Vec::new();
    let mut unknown = false;
    for item in fields.into_iter().flat_map(|value| value.split(|byte| *byte == b',')) {
        let name = item.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        match Coding::named(name).is_some() || name.eq_ignore_ascii_case(b"identity") {
            true => left.push(item.trim_ascii()),
            false => unknown |= !name.is_empty(),
        }
    }
    match (unknown, left.is_empty()) {
        (false, _) => None,
        (true, true) => Some(b"identity".to_vec()),
        (true, false) => Some(left.join(&b", "[..])),
    }
}

/// A weight in thousandths (RFC 9110 §12.4.2); what is none is 0, so that nothing is sent that may not
/// be wanted.
fn weight(parameter: &[u8]) -> u16 {
    let Some((b'q' | b'Q', value)) = parameter.split_first() else { return 0 };
    let Some(value) = value.trim_ascii_start().strip_prefix(b"=") else { return 0 };
    let value = value.trim_ascii();
    let (whole, rest) = value.split_at(value.len().min(1));
    let digits = rest.strip_prefix(b".").unwrap_or(rest);
    let well_formed = digits.len() <= 3
        && digits.iter().all(u8::is_ascii_digit)
        && (rest.is_empty() || rest.starts_with(b"."));
    match (whole, well_formed) {
        (b"1", true) if digits.iter().all(|digit| *digit == b'0') => 1000,
        (b"0", true) => {
            let digit = |at: usize| u16::from(digits.get(at).map_or(0, |digit| digit - b'0'));
            digit(0) * 100 + digit(1) * 10 + digit(2)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_undone_is_not_asked_for() {
        let known =
            |field: &str| known([field.as_bytes()]).map(|value| String::from_utf8(value).unwrap());
        assert_eq!(known("gzip;q=0.5, br, identity"), None);
        assert_eq!(known("gzip;q=0.5,dcb, br, *"), Some("gzip;q=0.5, br".into()));
        assert_eq!(known("*"), Some("identity".into()));
        assert_eq!(known(""), None);
    }

    #[test]
    fn the_client_chooses_and_then_we_do() {
        use Coding::*;
        let ours = [Zstd, Brotli, Gzip];
        let chosen = |fields: &[&str]| choose(fields.iter().map(|field| field.as_bytes()), &ours);
        assert_eq!(chosen(&[]), None);
        assert_eq!(chosen(&[""]), None);
        assert_eq!(chosen(&["gzip, deflate, br, zstd"]), Some(Zstd));
        assert_eq!(chosen(&["gzip", "br"]), Some(Brotli));
        assert_eq!(chosen(&["gzip;q=1, br;q=0.9"]), Some(Gzip));
        assert_eq!(chosen(&["gzip;q=0.001, br; q=0.000"]), Some(Gzip));
        assert_eq!(chosen(&["*"]), Some(Zstd));
        assert_eq!(chosen(&["*;q=0.5, zstd;q=0"]), Some(Brotli));
        assert_eq!(chosen(&["GZIP;Q=0.5"]), Some(Gzip));
        assert_eq!(chosen(&["x-gzip"]), Some(Gzip));
        assert_eq!(chosen(&["deflate"]), None);
        assert_eq!(chosen(&["gzip;q=0"]), None);
        assert_eq!(chosen(&["identity, gzip;q=0.5"]), None);
        assert_eq!(chosen(&["identity;q=0.5, gzip;q=0.5"]), Some(Gzip));
        assert_eq!(chosen(&["gzip, *;q=0"]), Some(Gzip));
        for odd in [
            "gzip;q=2",
            "gzip;q=",
            "gzip;q",
            "gzip;x=1",
            "gzip;q=0.1234",
            "gzip;q=1.5",
            "gzip;q=0,5",
        ] {
            assert_eq!(chosen(&[odd]), None, "{odd}");
        }
    }
}
