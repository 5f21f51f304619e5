//! Which numbers of a run stand together in a chart, in which order and under which name.

use crate::curves::{Chart, MAX_SERIES};
use crate::metrics::Metrics;
use crate::series::Series;
use std::collections::{BTreeMap, BTreeSet};

/// Most charts on a page.
const MAX_CHARTS: usize = 40;

/// Weight of the past in the curves of single steps, which are noisy.
const SMOOTHING: f64 = 0.9;

/// Titles of charts of what follows a plan.
const SCHEDULES: [&str; 4] = ["learning rate", "temperature", "alpha", "epoch"];

/// Size of a plot in pixels: the labels stay legible when a phone shrinks it.
const SIZE: (u32, u32) = (420, 270);

/// Fewer points than this are drawn as they are.
const SMOOTHED_FROM: usize = 50;

/// Names that we know, in the order in which they are shown.
const KNOWN: &[(&str, &str)] = &[
    ("name", "name"),
    ("step", "step"),
    ("epoch", "epoch"),
    ("loss", "loss"),
    ("itc", "ITC"),
    ("itm", "ITM"),
    ("mlm", "MLM"),
    ("mim", "MIM"),
    ("psl", "PSL"),
    ("txt_r1", "TR@1"),
    ("txt_r5", "TR@5"),
    ("txt_r10", "TR@10"),
    ("img_r1", "IR@1"),
    ("img_r5", "IR@5"),
    ("img_r10", "IR@10"),
    ("batch_txt_r1", "TR@1 in the batch"),
    ("batch_img_r1", "IR@1 in the batch"),
    ("itm_accuracy", "ITM accuracy"),
    ("learning_rate", "learning rate"),
    ("lr", "learning rate"),
    ("grad_norm", "gradient norm"),
    ("temperature", "temperature"),
    ("temp", "temperature"),
    ("alpha", "alpha"),
    ("pairs_per_s", "pairs/s"),
    ("waited_s", "waited for data, s"),
    ("memory_gib", "memory, GiB"),
    ("codes_used", "codes used"),
    ("codes_in_batch", "codes in the batch"),
];

/// The parts of the loss (equation 10), which share a chart.
const LOSSES: [&str; 5] = ["itc", "itm", "mlm", "mim", "psl"];

/// A name without the prefix of its group: "loss/itc" and "loss_itc" are both "itc".
fn plain(name: &str) -> &str {
    let prefixes = ["loss/", "loss_", "retrieval/"];
    let rest = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix));
    rest.unwrap_or(name)
}

fn rank(name: &str) -> usize {
    let known = KNOWN.iter().position(|(known, _)| *known == plain(name));
    known.unwrap_or(KNOWN.len())
}

/// How a number is called on the page.
pub(crate) fn title(name: &str) -> String {
    let known = KNOWN.iter().find(|(known, _)| *known == plain(name));
    known.map_or_else(|| name.replace('_', " "), |(_, title)| title.to_string())
}

/// Names in the order in which they are shown: known ones first, the others by the alphabet.
pub(crate) fn ordered<'a>(names: impl Iterator<Item = &'a String>) -> Vec<&'a String> {
    let mut names: Vec<_> = names.collect();
    names.sort_by_key(|name| (rank(name), name.as_str()));
    names
}

/// The heading under which a number is drawn; numbers of one heading share a chart.
fn heading(name: &str) -> String {
    let plain = plain(name);
    if LOSSES.contains(&plain) {
        "losses".into()
    } else if is_recall(plain) {
        let within = plain.starts_with("batch_");
        if within { "retrieval within the batch" } else { "retrieval" }.into()
    } else if let Some((group, _)) = name.split_once('/') {
        group.into()
    } else {
        title(name)
    }
}

fn is_recall(name: &str) -> bool {
    let (head, rank) = name.rsplit_once("_r").unwrap_or_default();
    !head.is_empty() && matches!(rank, "1" | "5" | "10")
}

/// Charts of the training's own numbers.
pub(crate) fn of_metrics(metrics: &Metrics) -> Vec<Chart> {
    grouped(metrics).into_iter().map(smoothed).collect()
}

/// Smooths curves of single steps, and makes the chart logarithmic where that shows more. Schedules
/// are smooth by themselves: smoothing would bend them.
fn smoothed(mut chart: Chart) -> Chart {
    let long = |series: &Series| series.points.len() >= SMOOTHED_FROM;
    if !SCHEDULES.contains(&chart.title.as_str()) {
        if chart.series.iter().any(long) {
            chart.smoothing = SMOOTHING;
        }
        chart.log_y = spans_decades(&chart);
    }
    chart
}

/// Charts that compare runs: one for each number, one curve for each run.
pub(crate) fn of_runs(runs: &[(String, Metrics)]) -> Vec<Chart> {
    let names: BTreeSet<&String> = runs.iter().flat_map(|(_, run)| run.series.keys()).collect();
    let chart = |name: &String| {
        let curves = runs.iter().take(MAX_SERIES).filter_map(|(run, metrics)| {
            let points = metrics.series.get(name)?;
            Some(Series::new(run.clone(), points.clone()))
        });
        smoothed(Chart { title: title(name), series: curves.collect(), size: SIZE, ..Chart::default() })
    };
    let names = ordered(names.into_iter());
    names.into_iter().take(MAX_CHARTS).map(chart).collect()
}

/// Charts of evaluations, when there are curves to see.
pub(crate) fn of_evaluations(metrics: &Metrics) -> Vec<Chart> {
    let several = |chart: &Chart| chart.series.iter().any(|series| series.points.len() > 1);
    grouped(metrics).into_iter().filter(several).collect()
}

/// Parts of the loss differ by an order of magnitude and more: a logarithmic chart shows each.
fn spans_decades(chart: &Chart) -> bool {
    let values = chart.series.iter().flat_map(|series| &series.points);
    let values = values.map(|point| point.1).filter(|v| v.is_finite());
    let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
    low > 0.0 && high / low > 30.0
}

fn grouped(metrics: &Metrics) -> Vec<Chart> {
    let mut charts: BTreeMap<(usize, String), Chart> = BTreeMap::new();
    let mut place = BTreeMap::new();
    for name in ordered(metrics.series.keys()) {
        let heading = heading(name);
        let rank = *place.entry(heading.clone()).or_insert(rank(name));
        let chart = charts.entry((rank, heading.clone())).or_insert_with(|| Chart {
            title: heading,
            size: SIZE,
            ..Chart::default()
        });
        if chart.series.len() < MAX_SERIES {
            let points = metrics.series[name].clone();
            chart.series.push(Series::new(title(name), points));
        }
    }
    charts.into_values().take(MAX_CHARTS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(series: &[(&str, &[f64])]) -> Metrics {
        let points = |values: &[f64]| values.iter().enumerate().map(|(x, y)| (x as f64, *y)).collect();
        let series = series.iter().map(|(name, values)| (name.to_string(), points(values)));
        Metrics { series: series.collect(), ..Metrics::default() }
    }

    fn titles(charts: &[Chart]) -> Vec<&str> {
        charts.iter().map(|chart| chart.title.as_str()).collect()
    }

    #[test]
    fn losses_share_a_chart_and_the_rest_follows_in_order() {
        let falling: &[f64] = &[2.0, 1.0];
        let numbers = ["zebra", "mim", "itc", "loss", "learning_rate", "txt_r1", "img_r10"];
        let numbers = numbers.map(|name| (name, falling));
        let charts = of_metrics(&metrics(&numbers));
        let expected = ["loss", "losses", "retrieval", "learning rate", "zebra"];
        assert_eq!(titles(&charts), expected);
        let names: Vec<_> = charts[1].series.iter().map(|series| &series.name).collect();
        assert_eq!(names, ["ITC", "MIM"]);
    }

    #[test]
    fn groups_are_named_by_their_prefix() {
        let charts = of_metrics(&metrics(&[("time/load", &[1.0]), ("time/step", &[2.0])]));
        assert_eq!(titles(&charts), ["time"]);
        assert_eq!(title("loss/itc"), "ITC");
        assert_eq!(title("my_number"), "my number");
    }

    #[test]
    fn wide_ranges_are_logarithmic_and_long_curves_smoothed() {
        let long: Vec<f64> = (0..60).map(|n| 0.8_f64.powi(n)).collect();
        let charts = of_metrics(&metrics(&[("loss", &long), ("flat", &[2.0, 1.0, 0.0])]));
        assert!(charts[0].log_y && charts[0].smoothing > 0.0);
        assert!(!charts[1].log_y && charts[1].smoothing == 0.0);
    }

    #[test]
    fn one_evaluation_is_no_curve() {
        assert!(of_evaluations(&metrics(&[("txt_r1", &[1.0])])).is_empty());
        assert_eq!(of_evaluations(&metrics(&[("txt_r1", &[1.0, 2.0])])).len(), 1);
    }
}
