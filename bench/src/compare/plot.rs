//! The plot of a comparison: one panel of bars for each scenario.

use std::error::Error;

use plotters::prelude::*;

use super::report::{Report, Row, Sample, Section};
use super::scenario::{Rate, Work};
use crate::peer::Peer;

const PANEL: (u32, u32) = (460, 340);
const COLUMNS: usize = 2;
/// Room above the highest bar, as a share of it.
const HEADROOM: f64 = 1.15;

type Value = fn(&Sample) -> f64;
type Panel<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Draws the report as SVG text.
pub fn svg(report: &Report) -> Result<String, Box<dyn Error>> {
    let mut panels: Vec<(String, &Section, Value)> = Vec::new();
    for section in &report.sections {
        match section.scenario.work {
            Work::Idle { .. } => {
                panels.push((format!("{}: KiB per connection", section.name), section, |s| {
                    s.idle_bytes / 1024.0
                }));
            }
            Work::Handshakes { .. } => {
                let title = format!("{}: CPU us per connection", section.name);
                panels.push((title, section, |s| s.cpu_us));
            }
            Work::Requests { rate, .. } => {
                let title = format!("{}: CPU us per request", section.name);
                panels.push((title, section, |s| s.cpu_us));
                if section.scenario.is_share() {
                    let title = format!("{}: added p99 latency, us", section.name);
                    panels.push((title, section, |s| (s.p99_us - s.direct_p99_us).max(0.0)));
                } else if rate != Rate::Saturated {
                    let title = format!("{}: p99 latency, us", section.name);
                    panels.push((title, section, |s| s.p99_us));
                }
            }
        }
    }
    let rows = panels.len().div_ceil(COLUMNS).max(1);
    let mut out = String::new();
    {
        let size = (PANEL.0 * COLUMNS as u32, PANEL.1 * rows as u32);
        let root = SVGBackend::with_string(&mut out, size).into_drawing_area();
        root.fill(&WHITE)?;
        for (area, (title, section, value)) in
            root.split_evenly((rows, COLUMNS)).iter().zip(&panels)
        {
            panel(area, title, section, *value)?;
        }
        root.present()?;
    }
    Ok(out)
}

fn color(peer: Peer) -> RGBColor {
    match peer {
        Peer::Sluice => RGBColor(0, 114, 178),
        Peer::Relay | Peer::Direct => RGBColor(120, 120, 120),
        _ => RGBColor(230, 159, 0),
    }
}

/// Bars at the medians, whiskers from the least to the most.
fn panel(
    area: &Panel<'_>,
    title: &str,
    section: &Section,
    value: Value,
) -> Result<(), Box<dyn Error>> {
    let rows: Vec<&Row> = section.rows.iter().filter(|row| !row.samples.is_empty()).collect();
    let top = rows.iter().map(|row| row.spread(value).max).fold(0.0, f64::max) * HEADROOM;
    let top = if top > 0.0 { top } else { 1.0 };
    let labels: Vec<String> = rows.iter().map(|row| row.label(&section.scenario)).collect();
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(28)
        .y_label_area_size(48)
        .build_cartesian_2d(-0.5..rows.len().max(1) as f64 - 0.5, 0.0..top)?;
    let name = |x: &f64| {
        let near = x.round();
        let label = (x - near).abs() < 0.01 && near >= 0.0;
        if label { labels.get(near as usize).cloned().unwrap_or_default() } else { String::new() }
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(rows.len() * 2 + 1)
        .x_label_formatter(&name)
        .label_style(("sans-serif", 12))
        .draw()?;
    for (n, row) in rows.iter().enumerate() {
        let (x, spread) = (n as f64, row.spread(value));
        let bar = [(x - 0.35, 0.0), (x + 0.35, spread.median)];
        chart.draw_series([Rectangle::new(bar, color(row.peer).filled())])?;
        let whisker = vec![(x, spread.min), (x, spread.max)];
        chart.draw_series([PathElement::new(whisker, BLACK)])?;
        let text = if spread.median < 100.0 {
            format!("{:.1}", spread.median)
        } else {
            format!("{:.0}", spread.median)
        };
        chart.draw_series([Text::new(text, (x + 0.05, spread.max), ("sans-serif", 12))])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::report::{Place, tests::row};
    use crate::compare::scenario::ALL;

    #[test]
    fn every_scenario_has_its_panel() {
        let sections = ALL
            .into_iter()
            .map(|scenario| {
                let rows = vec![
                    row(Peer::Sluice, 10, &[20.0, 22.0]),
                    row(Peer::Sluice, 1000, &[21.0]),
                    row(Peer::Nginx, 0, &[40.0]),
                ];
                Section::new(scenario, rows)
            })
            .collect();
        let place = Place {
            machine: String::new(),
            kernel: String::new(),
            proxy_cpu: 1,
            load_cpu: 0,
            origin_cpu: 0,
            rounds: 1,
            seconds: 1.0,
        };
        let svg = svg(&Report { place, peers: Vec::new(), sections }).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for scenario in ALL {
            assert!(svg.contains(&format!("{}: ", scenario.name)), "{}", scenario.name);
        }
        assert!(svg.contains("nginx") && svg.contains("#0072B2"));
        // Three bars in every panel, and the backgrounds.
        assert!(svg.matches("<rect").count() > 3 * ALL.len());
    }
}
