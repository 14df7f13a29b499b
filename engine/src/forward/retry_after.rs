//! `Retry-After` (RFC 9110 §10.2.3): seconds, or a date.

/// Milliseconds from `now_s` (seconds since 1970) until the field says; a date that has passed is 0.
/// `None`: malformed, as if it were not there.
pub fn parse(value: &[u8], now_s: u64) -> Option<u64> {
    let seconds = match number(value) {
        Some(seconds) => seconds,
        None => date(value)?.saturating_sub(now_s),
    };
    Some(seconds.saturating_mul(1_000))
}

/// Decimal digits only. What overflows is a time that nobody waits for.
pub fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(digits.iter().fold(0, add))
}

/// Seconds since 1970 of an HTTP date, in any of the three forms (RFC 9110 §5.6.7).
pub fn date(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let words: Vec<&str> = text.split([' ', ',', '-']).filter(|word| !word.is_empty()).collect();
    let (day, month, year, time) = match *words.as_slice() {
        // Sun, 06 Nov 1994 08:49:37 GMT, or Sunday, 06-Nov-94 08:49:37 GMT.
        [_, day, month, year, time, "GMT"] => (day, month, year, time),
        // Sun Nov  6 08:49:37 1994.
        [_, month, day, time, year] => (day, month, year, time),
        _ => return None,
    };
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let day = number(day.as_bytes()).filter(|day| (1..=31).contains(day))?;
    let year = match (year.len(), number(year.as_bytes())?) {
        // Two digits are of a year at most 50 years ahead; all that matters here lies near now.
        (2, year) => year + if year < 70 { 2000 } else { 1900 },
        (4, year) if year >= 1970 => year,
        _ => return None,
    };
    let mut parts = time.split(':').map(|part| number(part.as_bytes()));
    let (Some(Some(hour)), Some(Some(minute)), Some(Some(second)), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Days since 1970 of a civil date from then on (Howard Hinnant's `days_from_civil`).
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let of_era = year % 400;
    let from_march = (month + 9) % 12;
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::write::http_date;
    use proptest::prelude::*;

    #[test]
    fn seconds_and_the_three_forms_of_a_date() {
        let at = 784_111_777;
        assert_eq!(parse(b"0", at), Some(0));
        assert_eq!(parse(b"120", at), Some(120_000));
        assert_eq!(parse(b"99999999999999999999999", at), Some(u64::MAX));
        for date in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse(date.as_bytes(), at - 7), Some(7_000), "{date}");
            assert_eq!(parse(date.as_bytes(), at + 7), Some(0), "{date}");
        }
    }

    #[test]
    fn anything_else_is_as_good_as_nothing() {
        for bad in [
            "",
            "-1",
            "1.5",
            "1s",
            "soon",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "Sun, 32 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "\u{ff}",
        ] {
            assert_eq!(parse(bad.as_bytes(), 0), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn reads_what_dates_we_write(at in 0u64..200_000_000_000) {
            prop_assert_eq!(date(&http_date(at)), Some(at));
        }

        #[test]
        fn never_panics(value in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(&value, 1);
        }
    }
}
