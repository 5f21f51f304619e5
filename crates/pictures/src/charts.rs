//! Which numbers of a run stand together in a chart.
//!
//! A number is called `group/name` where it is born, `loss/itc` say, and what it is to be compared with `group/name/baseline`:
//! `held_out/txt_r1/chance`. A group is a chart; where its numbers differ too much in size for one plane, it is several. What is a
//! straight line is no picture: it is told in words. A name without a group, of an old run, has a chart of its own.

use crate::curves::{Chart, MAX_SERIES};
use crate::metrics::Metrics;
use crate::numbers::{extent, natural, quantiles, short_number};
use crate::series::Series;
use std::collections::{BTreeMap, BTreeSet};

/// Most charts on a page.
const MAX_CHARTS: usize = 40;

/// Weight of the past in the curves of single steps, where they are noisy.
const SMOOTHING: f64 = 0.9;

/// Fewer points than this are drawn as they are.
const SMOOTHED_FROM: usize = 50;

/// A curve is noisy when its slope changes by more than this share of its height from point to point.
const NOISE: f64 = 0.01;

/// Numbers share a plane up to this ratio of the largest of each; beyond it a logarithmic one shows more.
const MAX_RATIO: f64 = 30.0;

/// Share of a curve's points that does not make a chart logarithmic.
const FEW: f64 = 0.2;

/// A line that strays from its chord by less than this share of its height is straight.
const STRAIGHT: f64 = 0.005;

/// Size of a plot in pixels: the labels stay legible when a phone shrinks it.
const SIZE: (u32, u32) = (420, 270);

/// What numbers look like: charts, and sentences for what needs none.
#[derive(Debug, Default)]
pub(crate) struct Curves {
    pub(crate) charts: Vec<Chart>,
    /// Name and what it does.
    pub(crate) told: Vec<(String, String)>,
}

/// Group, name in it, and the baseline that it is, if one.
pub(crate) fn parts(name: &str) -> (&str, &str, Option<&str>) {
    let (group, rest) = name.split_once('/').unwrap_or(("", name));
    let (own, baseline) = rest.split_once('/').map_or((rest, None), |(own, baseline)| (own, Some(baseline)));
    (group, own, baseline)
}

/// How a group is called on the page.
pub(crate) fn title(group: &str) -> String {
    group.replace('_', " ")
}

/// The charts of all groups.
pub(crate) fn of(metrics: &Metrics) -> Curves {
    let mut curves = Curves::default();
    let mut groups: BTreeMap<&str, Vec<(f64, Chart)>> = BTreeMap::new();
    let baselines = metrics.series.keys().filter(|name| parts(name).2.is_some()).collect::<BTreeSet<_>>();
    let mut names: Vec<&String> = metrics.series.keys().collect();
    names.sort_by(|a, b| natural(a).cmp(&natural(b)));
    for name in names {
        let points = &metrics.series[name];
        let (group, own, baseline) = parts(name);
        if baseline.is_some() {
            continue;
        }
        if let Some(words) = in_words(points) {
            curves.told.push((name.clone(), words));
            continue;
        }
        let size = largest(points);
        let fits = |(other, chart): &&mut (f64, Chart)| {
            let room = !group.is_empty() && chart.series.len() < MAX_SERIES;
            room && size.max(*other) <= MAX_RATIO * size.min(*other)
        };
        let charts = groups.entry(group).or_default();
        let chart = match charts.iter_mut().find(fits) {
            Some((_, chart)) => chart,
            None => {
                charts.push((size, Chart { size: SIZE, ..Chart::default() }));
                &mut charts.last_mut().expect("just pushed").1
            }
        };
        chart.series.push(Series::new(own, points.clone()));
        for of_this in
            baselines.iter().filter(|other| other.strip_prefix(name.as_str()).is_some_and(|r| r.starts_with('/')))
        {
            let baseline = parts(of_this).2.unwrap_or_default();
            chart.baselines.push(Series::new(baseline, metrics.series[*of_this].clone()));
        }
        if let Some(spread) = spread(name, metrics) {
            chart.note += &if chart.note.is_empty() { spread } else { format!("; {spread}") };
        }
    }
    for (group, charts) in groups {
        for (_, mut chart) in charts {
            chart.title = match &chart.series[..] {
                [alone] if group.is_empty() => alone.name.clone(),
                [alone] => format!("{}: {}", title(group), alone.name),
                _ => title(group),
            };
            curves.charts.push(styled(chart));
        }
    }
    curves.charts.truncate(MAX_CHARTS);
    curves
}

/// Charts that compare runs: one for each number, one curve for each run.
pub(crate) fn of_runs(runs: &[(String, Metrics)]) -> Vec<Chart> {
    let names: BTreeSet<&String> = runs.iter().flat_map(|(_, run)| run.series.keys()).collect();
    let chart = |name: &String| {
        let curves = runs.iter().take(MAX_SERIES).filter_map(|(run, metrics)| {
            let points = metrics.series.get(name)?;
            Some(Series::new(run.clone(), points.clone()))
        });
        let spreads = runs.iter().filter_map(|(run, metrics)| Some(format!("{run}: {}", spread(name, metrics)?)));
        let note = spreads.collect::<Vec<_>>().join("; ");
        styled(Chart { title: name.clone(), note, series: curves.collect(), size: SIZE, ..Chart::default() })
    };
    let charts = names.into_iter().map(chart);
    let bent = charts.filter(|chart| chart.series.iter().any(|series| in_words(&series.points).is_none()));
    bent.take(MAX_CHARTS).collect()
}

/// Smooths noisy curves, and makes the chart logarithmic where that shows more.
fn styled(mut chart: Chart) -> Chart {
    let noisy = |series: &Series| {
        let heights: Vec<f64> = series.points.iter().map(|point| point.1).filter(|y| y.is_finite()).collect();
        let (low, high) = extent(heights.iter().copied()).unwrap_or_default();
        let bends = heights.windows(3).map(|y| (y[2] - 2.0 * y[1] + y[0]).abs()).sum::<f64>();
        heights.len() >= SMOOTHED_FROM && bends > NOISE * (high - low) * heights.len() as f64
    };
    if chart.series.iter().any(noisy) {
        chart.smoothing = SMOOTHING;
    }
    // From where the lowest curve is for most of its time: one that only starts at zero stays as it is.
    let heights = |series: &Series| quantiles(series.points.iter().map(|point| point.1), [0.0, FEW, 1.0]);
    let all: Vec<[f64; 3]> = chart.series.iter().filter_map(heights).collect();
    let wide = extent(all.iter().flat_map(|[_, few, high]| [*few, *high]));
    let positive = all.iter().all(|[low, ..]| *low > 0.0);
    chart.log_y = positive && wide.is_some_and(|(low, high)| high / low > MAX_RATIO);
    chart
}

fn largest(points: &[(f64, f64)]) -> f64 {
    extent(points.iter().map(|point| point.1.abs())).map_or(0.0, |(_, high)| high)
}

/// What a straight line does; None: it is none.
fn in_words(points: &[(f64, f64)]) -> Option<String> {
    let points: Vec<(f64, f64)> = points.iter().copied().filter(|point| point.1.is_finite()).collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return Some("never a number".into());
    };
    let (low, high) = extent(points.iter().map(|point| point.1)).expect("there are finite points");
    let [from, to] = [first.1, last.1].map(short_number);
    if points.len() == 1 {
        return Some(from);
    }
    if high - low <= 1e-9 * low.abs().max(high.abs()) {
        return Some(format!("{from} all the time"));
    }
    let slope = (last.1 - first.1) / (last.0 - first.0);
    let strays = |(x, y): &(f64, f64)| (y - first.1 - slope * (x - first.0)).abs() > STRAIGHT * (high - low);
    let straight = points.len() > 2 && !points.iter().any(strays);
    straight.then(|| format!("from {from} to {to} in a straight line"))
}

/// Median and middle half of what is measured at single steps: times and what is done in them, whose names end in a unit of seconds.
fn spread(name: &str, metrics: &Metrics) -> Option<String> {
    let (_, own, _) = parts(name);
    let [low, median, high] = metrics.quartiles.get(name).filter(|_| own.ends_with("_s"))?.map(short_number);
    Some(format!("{own}: median {median}, half of the steps from {low} to {high}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbers::QUARTILES;

    const FALLING: &[f64] = &[2.0, 1.0, 0.8];

    fn metrics(series: &[(&str, &[f64])]) -> Metrics {
        let points = |values: &[f64]| values.iter().enumerate().map(|(x, y)| (x as f64, *y)).collect();
        let quartiles = series
            .iter()
            .map(|(name, values)| (name.to_string(), quantiles(values.iter().copied(), QUARTILES).unwrap_or_default()));
        let series = series.iter().map(|(name, values)| (name.to_string(), points(values)));
        Metrics { series: series.collect(), quartiles: quartiles.collect(), ..Metrics::default() }
    }

    fn titles(charts: &[Chart]) -> Vec<&str> {
        charts.iter().map(|chart| chart.title.as_str()).collect()
    }

    #[test]
    fn a_group_is_a_chart_and_so_is_a_name_without_one() {
        let names = ["loss/itc", "loss/mim", "held_out/accuracy", "old", "older"].map(|name| (name, FALLING));
        let curves = of(&metrics(&names));
        assert_eq!(titles(&curves.charts), ["old", "older", "held out: accuracy", "loss"]);
        let names: Vec<_> = curves.charts[3].series.iter().map(|series| &series.name).collect();
        assert_eq!(names, ["itc", "mim"]);
    }

    #[test]
    fn numbers_of_other_sizes_have_a_plane_of_their_own() {
        let small = [2e-5, 1e-5, 0.8e-5];
        let curves = of(&metrics(&[("schedule/alpha", FALLING), ("schedule/lr", &small), ("schedule/temp", FALLING)]));
        assert_eq!(titles(&curves.charts), ["schedule", "schedule: lr"]);
        assert_eq!(curves.charts[0].series.len(), 2);
    }

    #[test]
    fn straight_lines_are_told() {
        let words =
            |values: &[f64]| in_words(&values.iter().enumerate().map(|(x, y)| (x as f64, *y)).collect::<Vec<_>>());
        assert_eq!(words(&[0.4, 0.4]).as_deref(), Some("0.4 all the time"));
        assert_eq!(words(&[0.0, 0.5, 1.0, 1.5]).as_deref(), Some("from 0 to 1.5 in a straight line"));
        assert_eq!(words(&[7.0]).as_deref(), Some("7"));
        assert_eq!(words(&[f64::NAN, f64::INFINITY]).as_deref(), Some("never a number"));
        assert_eq!((words(FALLING), words(&[1.0, 2.0])), (None, None));
        let curves = of(&metrics(&[("loss/itc", FALLING), ("schedule/alpha", &[0.4, 0.4, 0.4])]));
        assert_eq!(titles(&curves.charts), ["loss: itc"]);
        assert_eq!(curves.told[0].0, "schedule/alpha");
    }

    #[test]
    fn baselines_stand_in_the_chart_of_what_they_are_compared_with() {
        let numbers = [("held_out/txt_r1", FALLING), ("held_out/txt_r1/chance", &[1.0, 1.0, 1.0])];
        let curves = of(&metrics(&numbers));
        assert_eq!(curves.charts.len(), 1);
        assert_eq!((curves.charts[0].series.len(), curves.charts[0].baselines[0].name.as_str()), (1, "chance"));
        assert!(curves.told.is_empty());
    }

    #[test]
    fn times_say_median_and_spread() {
        let curves = of(&metrics(&[("machine/step_s", &[4.0, 1.0, 2.0, 3.0]), ("machine/memory_gib", FALLING)]));
        assert_eq!(curves.charts[0].note, "step_s: median 2.5, half of the steps from 1.75 to 3.25");
    }

    #[test]
    fn wide_ranges_are_logarithmic_and_noise_is_smoothed() {
        let decay: Vec<f64> = (0..60).map(|n| 0.8_f64.powi(n)).collect();
        let noise: Vec<f64> = (0..60).map(|n| f64::from(n * 37 % 60) - 1.0).collect();
        let charts = of(&metrics(&[("a/decay", &decay), ("b/noise", &noise)])).charts;
        let warmup: Vec<f64> = (1..60).map(|n| 1e-4 * f64::from(n.min(10)) / 1000.0).collect();
        assert!(!of(&metrics(&[("schedule/lr", &warmup)])).charts[0].log_y);
        assert!(charts[0].log_y && charts[0].smoothing == 0.0);
        assert!(!charts[1].log_y && charts[1].smoothing > 0.0);
    }
}
