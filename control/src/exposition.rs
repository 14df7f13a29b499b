//! Reading Prometheus' text back, strictly: for `sluice metrics --json`, and to hold what we write
//! to the exposition format 0.0.4.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

/// One metric family.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Family {
    pub name: String,
    /// `counter`, `gauge`, `histogram` or `summary`.
    #[serde(rename = "type")]
    pub kind: String,
    pub help: String,
    pub samples: Vec<Sample>,
}

/// One line of a family.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// The families of `text` in their order.
///
/// # Errors
/// The first line that breaks a rule: each family has HELP and TYPE once, in this order, before its
/// samples, and these stand together; counters end in `_total`; no series comes twice; a
/// histogram's buckets rise, end with `+Inf` and agree with its count.
pub fn parse(text: &str) -> Result<Vec<Family>, String> {
    let mut families: Vec<Family> = Vec::new();
    let mut names = HashSet::new();
    let mut series = HashSet::new();
    // A HELP that waits for its TYPE.
    let mut help: Option<(&str, &str)> = None;
    for (at, line) in text.lines().enumerate() {
        let wrong = |what: &str| Err(format!("line {}: {what}: {line}", at + 1));
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let Some((name, said)) = rest.split_once(' ') else {
                return wrong("HELP says nothing");
            };
            if help.is_some() || !names.insert(name) {
                return wrong("HELP twice, or without TYPE");
            }
            help = Some((name, said));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = rest.split_once(' ') else { return wrong("TYPE of nothing") };
            let Some((_, said)) = help.take().filter(|(helped, _)| *helped == name) else {
                return wrong("TYPE does not follow its HELP");
            };
            let known = ["counter", "gauge", "histogram", "summary"].contains(&kind);
            if !known || !is_name(name) || (kind == "counter") != name.ends_with("_total") {
                return wrong("not a name and type that go together");
            }
            families.push(Family {
                name: name.into(),
                kind: kind.into(),
                help: said.into(),
                samples: Vec::new(),
            });
        } else {
            let Some(family) = families.last_mut().filter(|_| help.is_none()) else {
                return wrong("no sample can be here");
            };
            let Some(sample) = sample(line) else { return wrong("not a sample") };
            if !belongs(&sample, family) {
                return wrong("of another family");
            }
            if !series.insert((sample.name.clone(), sample.labels.clone())) {
                return wrong("a series that was there already");
            }
            family.samples.push(sample);
        }
    }
    for family in families.iter().filter(|family| family.kind == "histogram") {
        histogram(family).map_err(|why| format!("{}: {why}", family.name))?;
    }
    Ok(families)
}

/// `[a-zA-Z_:][a-zA-Z0-9_:]*`, without the colon, which is for recording rules.
fn is_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn belongs(sample: &Sample, family: &Family) -> bool {
    let suffix = sample.name.strip_prefix(family.name.as_str());
    match family.kind.as_str() {
        "histogram" => matches!(suffix, Some("_bucket" | "_sum" | "_count")),
        "summary" => matches!(suffix, Some("_sum" | "_count")),
        _ => suffix == Some(""),
    }
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at_checked(end)?;
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            if !is_name(label) || labels.insert(label.to_owned(), value).is_some() {
                return None;
            }
            match after.strip_prefix(',') {
                Some(more) => rest = more,
                None => {
                    rest = after.strip_prefix('}')?;
                    break;
                }
            }
        }
    }
    let value: f64 = rest.strip_prefix(' ')?.parse().ok()?;
    (is_name(name) && value.is_finite()).then(|| Sample { name: name.into(), labels, value })
}

/// A label's value up to its closing quote, and what comes after that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text.char_indices();
    while let Some((at, c)) = rest.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(match rest.next()?.1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}

/// Checks the samples of each label set.
fn histogram(family: &Family) -> Result<(), String> {
    #[derive(Default)]
    struct Parts {
        buckets: Vec<(f64, f64)>,
        sum: bool,
        count: Option<f64>,
    }
    let mut sets: BTreeMap<BTreeMap<String, String>, Parts> = BTreeMap::new();
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        let bound = labels.remove("le");
        let parts = sets.entry(labels).or_default();
        match (sample.name.strip_prefix(family.name.as_str()), bound) {
            (Some("_bucket"), Some(bound)) => {
                let bound = if bound == "+Inf" { Ok(f64::INFINITY) } else { bound.parse() };
                let bound = bound.map_err(|_| "a bucket's bound is no number".to_owned())?;
                parts.buckets.push((bound, sample.value));
            }
            (Some("_sum"), None) => parts.sum = true,
            (Some("_count"), None) => parts.count = Some(sample.value),
            _ => return Err("only buckets have a bound, and each has one".into()),
        }
    }
    for (labels, Parts { buckets, sum, count }) in sets {
        let rise = buckets.windows(2).all(|pair| match pair {
            [(low, few), (high, many)] => low < high && few <= many,
            _ => true,
        });
        let last = buckets.last().copied();
        if !rise || !sum || count.is_none() || last != count.map(|count| (f64::INFINITY, count)) {
            return Err(format!("buckets, sum and count of {labels:?} do not agree"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a_total Some.\n# TYPE a_total counter\na_total{x=\"1\\\"\\\\\\n\"} 2\n\
        a_total{x=\"2\"} 3\n# HELP h Time.\n# TYPE h histogram\nh_bucket{le=\"0.5\"} 1\n\
        h_bucket{le=\"+Inf\"} 2\nh_sum 0.75\nh_count 2\n";

    #[test]
    fn reads_what_is_there() {
        let families = parse(GOOD).unwrap();
        assert_eq!(families.len(), 2);
        assert_eq!((&*families[0].name, &*families[0].help), ("a_total", "Some."));
        assert_eq!(families[0].samples[0].labels["x"], "1\"\\\n");
        assert_eq!(families[1].samples[2].value, 0.75);
        assert_eq!(parse(""), Ok(vec![]));
    }

    #[test]
    fn refuses_what_breaks_a_rule() {
        for (good, bad) in [
            ("# TYPE a_total counter\n", ""),
            ("# HELP a_total Some.\n", ""),
            ("# HELP h Time.\n", "# HELP a_total Time.\n"),
            ("a_total{x=\"2\"} 3", "a_total{x=\"1\\\"\\\\\\n\"} 3"),
            ("a_total{x=\"2\"} 3", "b_total{x=\"2\"} 3"),
            ("a_total{x=\"2\"} 3", "a_total{x=\"2\"} x"),
            ("a_total{x=\"2\"} 3", "a_total{x=\"\\2\"} 3"),
            ("a_total{x=\"2\"} 3", "a_total{x=\"2\",x=\"3\"} 3"),
            ("counter", "gauge"),
            ("h histogram", "h counter"),
            ("0.5\"} 1", "0.5\"} 3"),
            ("h_bucket{le=\"+Inf\"} 2\n", ""),
            ("h_sum 0.75\n", ""),
            ("h_count 2", "h_count 3"),
        ] {
            let text = GOOD.replacen(good, bad, 1);
            assert_ne!(text, GOOD);
            assert!(parse(&text).is_err(), "{good:?} → {bad:?} was taken");
        }
    }
}
