//! Latency histograms: what they hold, and the percentile text format (`.hgrm`) that
//! HdrHistogram's plotters read.

use std::io::{self, Write};

use hdrhistogram::Histogram;

/// The longest latency kept apart, in ns. Longer ones are counted as this.
pub const MAX_NS: u64 = 3_600_000_000_000;

/// A histogram of latencies in ns, exact to 3 digits.
pub fn latencies() -> Histogram<u64> {
    match Histogram::new_with_bounds(1_000, MAX_NS, 3) {
        Ok(histogram) => histogram,
        // The bounds are constants that the crate accepts; the tests below would show otherwise.
        Err(error) => unreachable!("histogram bounds: {error}"),
    }
}

/// Writes the percentile distribution in milliseconds, five ticks for each halving of the
/// distance to 100 %, as HdrHistogram's `outputPercentileDistribution` does.
pub fn write_hgrm(histogram: &Histogram<u64>, out: &mut impl Write) -> io::Result<()> {
    const NS_PER_MS: f64 = 1e6;
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    writeln!(out)?;
    let mut total = 0;
    for step in histogram.iter_quantiles(5) {
        total += step.count_since_last_iteration();
        let value = histogram.highest_equivalent(step.value_iterated_to()) as f64 / NS_PER_MS;
        let quantile = step.quantile_iterated_to();
        write!(out, "{value:>12.3} {quantile:>14.12} {total:>10}")?;
        if quantile < 1.0 {
            writeln!(out, " {:>14.2}", 1.0 / (1.0 - quantile))?;
        } else {
            writeln!(out, " {:>14}", "inf")?;
        }
    }
    let (mean, deviation) = (histogram.mean() / NS_PER_MS, histogram.stdev() / NS_PER_MS);
    writeln!(out, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]")?;
    let (max, count) = (histogram.max() as f64 / NS_PER_MS, histogram.len());
    writeln!(out, "#[Max     = {max:>12.3}, Total count    = {count:>12}]")?;
    let (buckets, sub_buckets) = buckets(histogram);
    writeln!(out, "#[Buckets = {buckets:>12}, SubBuckets     = {sub_buckets:>12}]")
}

/// The numbers of buckets and sub-buckets, by HdrHistogram's own rule.
fn buckets(histogram: &Histogram<u64>) -> (u32, u64) {
    let largest_single = 2 * 10u64.pow(u32::from(histogram.sigfig()));
    let sub_buckets = largest_single.next_power_of_two();
    let unit = histogram.low().max(1).ilog2();
    let mut reach = u128::from(sub_buckets) << unit;
    let mut count = 1;
    while reach <= u128::from(histogram.high()) {
        reach <<= 1;
        count += 1;
    }
    (count, sub_buckets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(histogram: &Histogram<u64>) -> String {
        let mut out = Vec::new();
        write_hgrm(histogram, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_format_is_the_plotters() {
        let mut histogram = latencies();
        for ms in 1..=1000 {
            histogram.record(ms * 1_000_000).unwrap();
        }
        let text = text(&histogram);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "       Value     Percentile TotalCount 1/(1-Percentile)");
        assert_eq!(lines[1], "");
        let rows: Vec<Vec<&str>> = lines[2..]
            .iter()
            .take_while(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows[0][1..], ["0.000000000000", "1", "1.00"]);
        let median = rows.iter().find(|row| row[1] == "0.500000000000").unwrap();
        assert_eq!(median[2..], ["500", "2.00"]);
        let value: f64 = median[0].parse().unwrap();
        assert!((value - 500.0).abs() <= 0.5, "{value}");
        let last = rows.last().unwrap();
        assert_eq!(last[1..], ["1.000000000000", "1000", "inf"]);
        let mut before = 0.0;
        for row in &rows {
            assert_eq!(row.len(), 4);
            let value: f64 = row[0].parse().unwrap();
            assert!(value >= before);
            before = value;
        }
        let tail = &lines[lines.len() - 3..];
        assert!(tail[0].starts_with("#[Mean    =      500."), "{}", tail[0]);
        assert!(tail[1].starts_with("#[Max     =     100"), "{}", tail[1]);
        assert!(tail[1].ends_with("Total count    =         1000]"), "{}", tail[1]);
        assert!(tail[2].ends_with("SubBuckets     =         2048]"), "{}", tail[2]);
    }

    #[test]
    fn an_empty_histogram_is_written_too() {
        assert!(text(&latencies()).contains("Total count    =            0]"));
    }
}
