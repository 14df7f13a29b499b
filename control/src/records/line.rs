//! One access record as one line of JSON, written by hand: this runs once per request.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
};

use contract::record::{Reason, Record, RetryStop};

/// Writes lines; remembers the last second it spelled out.
#[derive(Default)]
pub struct LineWriter {
    /// Seconds since the epoch that `date` spells.
    second: Option<u64>,
    /// `2026-11-24T20:13:06`.
    date: String,
}

impl LineWriter {
    /// Appends `record` and a line feed to `out`. Texts that are not UTF-8 get U+FFFD in place of
    /// each invalid sequence, so a line is always valid JSON.
    pub fn write(
        &mut self,
        out: &mut Vec<u8>,
        shard: usize,
        record: &Record<'_>,
        route: Option<&str>,
        upstream: Option<&str>,
    ) {
        out.extend_from_slice(b"{\"time\":\"");
        self.time(out, record.time_us);
        out.push(b'"');
        if !record.request_id.is_empty() {
            text(out, ",\"request_id\":", record.request_id);
        }
        if let Some(client) = record.client {
            out.extend_from_slice(b",\"client\":\"");
            address(out, client);
            out.push(b'"');
        }
        text(out, ",\"method\":", record.method);
        text(out, ",\"host\":", record.host);
        text(out, ",\"path\":", record.path);
        let version = match record.version {
            10 => ",\"version\":\"1.0\"",
            20 => ",\"version\":\"2\"",
            _ => ",\"version\":\"1.1\"",
        };
        out.extend_from_slice(version.as_bytes());
        number(out, ",\"status\":", record.status.into());
        if record.reason != Reason::None {
            out.extend_from_slice(b",\"reason\":\"");
            out.extend_from_slice(record.reason.name().as_bytes());
            out.push(b'"');
        }
        if let Some(route) = route {
            text(out, ",\"route\":", route.as_bytes());
        }
        if let Some(upstream) = upstream {
            text(out, ",\"upstream\":", upstream.as_bytes());
        }
        if let Some(target) = record.target {
            out.extend_from_slice(b",\"target\":\"");
            address(out, target);
            out.push(b'"');
        }
        number(out, ",\"attempts\":", record.attempts.into());
        if record.retry_stopped != RetryStop::None {
            out.extend_from_slice(b",\"retry_stopped\":\"");
            out.extend_from_slice(record.retry_stopped.name().as_bytes());
            out.push(b'"');
        }
        number(out, ",\"duration_us\":", record.duration_us.into());
        number(out, ",\"first_byte_us\":", record.first_byte_us.into());
        number(out, ",\"connect_us\":", record.connect_us.into());
        number(out, ",\"request_bytes\":", record.request_bytes);
        number(out, ",\"response_bytes\":", record.response_bytes);
        if !record.user_agent.is_empty() {
            text(out, ",\"user_agent\":", record.user_agent);
        }
        if !record.consumer.is_empty() {
            text(out, ",\"consumer\":", record.consumer);
        }
        number(out, ",\"shard\":", shard as u64);
        number(out, ",\"epoch\":", record.epoch);
        out.extend_from_slice(b"}\n");
    }

    /// RFC 3339 in UTC with microseconds.
    fn time(&mut self, out: &mut Vec<u8>, time_us: u64) {
        let second = time_us / 1_000_000;
        if self.second != Some(second) {
            self.date = date(second);
            self.second = Some(second);
        }
        out.extend_from_slice(self.date.as_bytes());
        let mut fraction = *b".000000Z";
        let mut rest = time_us % 1_000_000;
        for digit in fraction[1..7].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        out.extend_from_slice(&fraction);
    }
}

/// `2026-11-24T20:13:06` for seconds since the Unix epoch, in UTC.
pub fn date(second: u64) -> String {
    let (days, of_day) = (second / 86_400, second % 86_400);
    // Civil date from a day count by Howard Hinnant's algorithm: years begin in March, so that the
    // leap day is the last of its year.
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

fn number(out: &mut Vec<u8>, key: &str, value: u64) {
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn address(out: &mut Vec<u8>, address: SocketAddr) {
    let mut digits = itoa::Buffer::new();
    match address.ip() {
        IpAddr::V4(ip) => {
            for (at, octet) in ip.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(digits.format(octet).as_bytes());
            }
        }
        // Writing to a Vec cannot fail.
        IpAddr::V6(ip) => _ = write!(out, "[{ip}]"),
    }
    out.push(b':');
    out.extend_from_slice(digits.format(address.port()).as_bytes());
}

/// `key` and then `value` as a JSON string (RFC 8259 §7).
fn text(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    out.extend_from_slice(key.as_bytes());
    out.push(b'"');
    if value.iter().all(|byte| PLAIN[*byte as usize]) {
        out.extend_from_slice(value);
    } else {
        for chunk in value.utf8_chunks() {
            escape(out, chunk.valid());
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }
    out.push(b'"');
}

/// ASCII that stands for itself inside a JSON string.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x20;
    while byte < 0x7f {
        plain[byte] = byte != b'"' as usize && byte != b'\\' as usize;
        byte += 1;
    }
    plain
};

fn escape(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            // DEL is legal in JSON, but not something to send to a terminal.
            0..0x20 | 0x7f => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn line(record: &Record<'_>, route: Option<&str>, upstream: Option<&str>) -> (String, Value) {
        let mut out = Vec::new();
        LineWriter::default().write(&mut out, 1, record, route, upstream);
        let line = String::from_utf8(out).expect("a line is UTF-8");
        assert_eq!(line.matches('\n').count(), 1, "one record, one line");
        let value = serde_json::from_str(&line).expect("a line is JSON");
        (line, value)
    }

    #[test]
    fn writes_every_field() {
        let record = Record {
            time_us: 1_795_551_186_000_042,
            duration_us: 1500,
            first_byte_us: 900,
            connect_us: 0,
            epoch: 7,
            status: 200,
            attempts: 1,
            version: 11,
            request_bytes: 1,
            response_bytes: 128,
            client: Some("192.0.2.7:5000".parse().unwrap()),
            target: Some("[2001:db8::1]:80".parse().unwrap()),
            request_id: b"abc",
            method: b"GET",
            host: b"example.com",
            path: b"/a",
            user_agent: b"curl/8",
            consumer: b"shop",
            ..Record::default()
        };
        let (text, _) = line(&record, Some("users"), Some("app"));
        assert_eq!(
            text,
            "{\"time\":\"2026-11-24T20:13:06.000042Z\",\"request_id\":\"abc\",\
             \"client\":\"192.0.2.7:5000\",\"method\":\"GET\",\"host\":\"example.com\",\
             \"path\":\"/a\",\"version\":\"1.1\",\"status\":200,\"route\":\"users\",\
             \"upstream\":\"app\",\"target\":\"[2001:db8::1]:80\",\"attempts\":1,\
             \"duration_us\":1500,\"first_byte_us\":900,\"connect_us\":0,\"request_bytes\":1,\
             \"response_bytes\":128,\"user_agent\":\"curl/8\",\"consumer\":\"shop\",\"shard\":1,\"epoch\":7}\n"
        );
    }

    #[test]
    fn leaves_out_what_is_unknown() {
        let record = Record { reason: Reason::NoRoute, status: 404, ..Record::default() };
        let (_, value) = line(&record, None, None);
        assert_eq!(value["reason"], "no_route");
        for absent in [
            "route",
            "upstream",
            "client",
            "target",
            "request_id",
            "user_agent",
            "consumer",
            "retry_stopped",
        ] {
            assert!(value.get(absent).is_none(), "{absent}");
        }
        let record = Record { retry_stopped: RetryStop::Budget, ..Record::default() };
        assert_eq!(line(&record, None, None).1["retry_stopped"], "budget");
    }

    #[test]
    fn dates_at_the_edges() {
        assert_eq!(date(0), "1970-01-01T00:00:00");
        assert_eq!(date(951_782_399), "2000-02-28T23:59:59");
        assert_eq!(date(951_782_400), "2000-02-29T00:00:00");
        assert_eq!(date(4_107_542_400), "2100-03-01T00:00:00");
        assert_eq!(date(1_735_689_599), "2024-12-31T23:59:59");
        // The largest time a record can carry.
        assert_eq!(date(u64::MAX / 1_000_000).len(), "584554-05-10T00:00:00".len());
    }

    proptest! {
        #[test]
        fn any_bytes_read_back_as_serde_reads_them(
            path in proptest::collection::vec(any::<u8>(), 0..64),
            agent in ".{0,32}",
            route in ".{1,16}",
            time_us in any::<u64>(),
            numbers in any::<(u32, u64, u16, u8)>(),
            client in any::<(std::net::IpAddr, u16)>(),
        ) {
            let client = SocketAddr::from(client);
            let record = Record {
                time_us,
                duration_us: numbers.0,
                request_bytes: numbers.1,
                status: numbers.2,
                attempts: numbers.3,
                client: Some(client),
                path: &path,
                user_agent: agent.as_bytes(),
                ..Record::default()
            };
            let (text, value) = line(&record, Some(&route), None);
            prop_assert_eq!(value["path"].as_str().unwrap(), String::from_utf8_lossy(&path));
            if !agent.is_empty() {
                prop_assert_eq!(value["user_agent"].as_str().unwrap(), agent);
            }
            prop_assert_eq!(value["route"].as_str().unwrap(), route);
            prop_assert_eq!(value["duration_us"].as_u64(), Some(numbers.0.into()));
            prop_assert_eq!(value["request_bytes"].as_u64(), Some(numbers.1));
            prop_assert_eq!(value["status"].as_u64(), Some(numbers.2.into()));
            prop_assert_eq!(value["attempts"].as_u64(), Some(numbers.3.into()));
            prop_assert_eq!(value["client"].as_str().unwrap().parse::<SocketAddr>().unwrap(), client);
            prop_assert!(!text.trim_end().bytes().any(|byte| byte < 0x20 || byte == 0x7f));
        }
    }
}
