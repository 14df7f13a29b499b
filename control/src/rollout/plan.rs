//! What a person asks of a trial, and which nodes it takes.

use std::{fmt, str::FromStr};

use super::Rules;
use crate::store::NodeReport;

/// A trial that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    pub canaries: Canaries,
    pub rules: Rules,
}

/// Which nodes serve a revision on trial.
#[derive(Clone, Debug, PartialEq)]
pub enum Canaries {
    /// So many.
    Count(usize),
    /// As many as serve this share of the traffic, in percent.
    Percent(f64),
    /// These.
    Names(Vec<String>),
}

impl FromStr for Canaries {
    type Err = String;

    fn from_str(text: &str) -> Result<Canaries, String> {
        let text = text.trim();
        let wrong = || {
            format!(
                "`{text}` names no canaries: expected a number of nodes such as 1, a share of the \
                 traffic such as 10%, or nodes by name such as gateway-1,gateway-2"
            )
        };
        if let Some(share) = text.strip_suffix('%') {
            let share =
                share.trim().parse::<f64>().ok().filter(|share| *share > 0.0 && *share < 100.0);
            return share.map(Canaries::Percent).ok_or_else(wrong);
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let count = text.parse().ok().filter(|count| *count > 0);
            return count.map(Canaries::Count).ok_or_else(wrong);
        }
        let mut names: Vec<String> = Vec::new();
        for name in text.split(',').map(str::trim) {
            if name.is_empty() {
                return Err(wrong());
            }
            if !names.iter().any(|known| known == name) {
                names.push(name.into());
            }
        }
        Ok(Canaries::Names(names))
    }
}

impl fmt::Display for Canaries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Canaries::Count(count) => write!(f, "{count}"),
            Canaries::Percent(share) => write!(f, "{share}%"),
            Canaries::Names(names) => f.write_str(&names.join(",")),
        }
    }
}

impl Canaries {
    /// The names of those among `nodes`, all of which live. At least one is left for comparison.
    ///
    /// # Errors
    /// For people: there are too few, or one is not known.
    pub fn choose(&self, nodes: &[NodeReport]) -> Result<Vec<String>, String> {
        if nodes.len() < 2 {
            return Err(format!(
                "a trial compares nodes, and {} of the store lives: at least 2 are needed",
                match nodes.len() {
                    0 => "none",
                    _ => "only 1",
                }
            ));
        }
        let most = nodes.len() - 1;
        // Those that serve least first: what is new may be wrong.
        let mut quiet: Vec<&NodeReport> = nodes.iter().collect();
        quiet.sort_by(|one, other| {
            one.load.rate.total_cmp(&other.load.rate).then_with(|| one.name.cmp(&other.name))
        });
        let first = |count: usize| quiet.iter().take(count).map(|node| node.name.clone()).collect();
        match self {
            Canaries::Count(count) if *count <= most => Ok(first(*count)),
            Canaries::Count(count) => Err(format!(
                "{count} of {} nodes leave none to compare with: at most {most}",
                nodes.len()
            )),
            Canaries::Percent(share) => {
                let all: f64 = quiet.iter().map(|node| node.load.rate).sum();
                // Without traffic a node is as good as another.
                let weight = |node: &NodeReport| match all > 0.0 {
                    true => node.load.rate / all,
                    false => 1.0 / quiet.len() as f64,
                };
                let (mut count, mut sum) = (0, 0.0);
                for node in &quiet {
                    if sum * 100.0 >= share - 1e-9 {
                        break;
                    }
                    sum += weight(node);
                    count += 1;
                }
                Ok(first(count.clamp(1, most)))
            }
            Canaries::Names(names) => {
                if let Some(name) =
                    names.iter().find(|name| !nodes.iter().any(|n| n.name == **name))
                {
                    let known: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
                    return Err(format!("no node `{name}` lives; there are {}", known.join(", ")));
                }
                match names.len() <= most {
                    true => Ok(names.clone()),
                    false => {
                        Err("these are all nodes: at least one is needed to compare with".into())
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Load;

    fn nodes(rates: &[f64]) -> Vec<NodeReport> {
        let node = |(at, rate): (usize, &f64)| NodeReport {
            name: format!("n{at}"),
            load: Load { rate: *rate, ..Load::default() },
            ..NodeReport::default()
        };
        rates.iter().enumerate().map(node).collect()
    }

    fn chosen(text: &str, rates: &[f64]) -> Result<Vec<String>, String> {
        text.parse::<Canaries>()?.choose(&nodes(rates))
    }

    #[test]
    fn the_quietest_come_first_and_one_is_left() {
        assert_eq!(chosen("1", &[9.0, 2.0, 5.0]), Ok(vec!["n1".into()]));
        assert_eq!(chosen("2", &[9.0, 2.0, 5.0]), Ok(vec!["n1".into(), "n2".into()]));
        assert!(chosen("3", &[9.0, 2.0, 5.0]).unwrap_err().contains("at most 2"));
        assert!(chosen("1", &[9.0]).unwrap_err().contains("only 1 of the store lives"));
        assert!(chosen("1", &[]).unwrap_err().contains("none"));
    }

    #[test]
    fn a_share_is_of_the_traffic() {
        assert_eq!(chosen("10%", &[50.0, 30.0, 10.0, 10.0]), Ok(vec!["n2".into()]));
        assert_eq!(chosen("15%", &[50.0, 30.0, 10.0, 10.0]), Ok(vec!["n2".into(), "n3".into()]));
        assert_eq!(chosen("1 %", &[50.0, 50.0]), Ok(vec!["n0".into()]));
        assert_eq!(chosen("99%", &[1.0, 1.0, 1.0]), Ok(vec!["n0".into(), "n1".into()]));
        // Without traffic by their number.
        assert_eq!(chosen("50%", &[0.0; 4]), Ok(vec!["n0".into(), "n1".into()]));
    }

    #[test]
    fn nodes_by_name_must_live() {
        assert_eq!(chosen("n2, n0,n2", &[1.0; 3]), Ok(vec!["n2".into(), "n0".into()]));
        assert!(chosen("n2,other", &[1.0; 3]).unwrap_err().contains("there are n0, n1, n2"));
        assert!(chosen("n0,n1", &[1.0; 2]).is_err());
        for text in ["", "0", "0%", "100%", "-1%", "x%", "a,,b", "NaN%"] {
            assert!(text.parse::<Canaries>().is_err(), "{text}");
        }
    }
}
