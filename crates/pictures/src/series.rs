//! A curve's points, their smoothing, and the mean of several runs.

/// One curve.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Points from left to right. One that is not finite is a gap.
    pub points: Vec<(f64, f64)>,
    /// Lowest and highest y at each x of `points`, drawn as a band; empty: none.
    pub band: Vec<(f64, f64)>,
}

impl Series {
    /// A curve without a band.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, band: Vec::new() }
    }

    /// Mean of several runs (seeds) with a band from the lowest to the highest. The k-th points of
    /// the runs belong together, as evaluations after the same step do though their times differ;
    /// points that some run lacks are left out.
    pub fn over_runs(name: impl Into<String>, runs: &[Vec<(f64, f64)>]) -> Self {
        let length = runs.iter().map(Vec::len).min().unwrap_or(0);
        let mut series = Self::new(name, Vec::with_capacity(length));
        for at in 0..length {
            let count = runs.len() as f64;
            let mean = |of: fn(&(f64, f64)) -> f64| runs.iter().map(|run| of(&run[at])).sum::<f64>() / count;
            series.points.push((mean(|p| p.0), mean(|p| p.1)));
            let heights = runs.iter().map(|run| run[at].1);
            let low = heights.clone().fold(f64::INFINITY, f64::min);
            series.band.push((low, heights.fold(f64::NEG_INFINITY, f64::max)));
        }
        series
    }

    /// The curve's exponential moving average, free of a pull to the start (as Adam corrects its
    /// averages): each point weighs `1 - weight`, its past `weight`. Gaps are passed over.
    pub fn smoothed(&self, weight: f64) -> Vec<(f64, f64)> {
        let (mut sum, mut share) = (0.0, 0.0);
        let finite = self.points.iter().filter(|p| p.1.is_finite());
        finite
            .map(|&(x, y)| {
                sum = weight * sum + (1.0 - weight) * y;
                share = weight * share + (1.0 - weight);
                (x, sum / share)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_starts_at_the_first_value_and_follows_by_hand() {
        let smoothed = Series::new("", vec![(0.0, 4.0), (1.0, 0.0), (2.0, f64::NAN), (3.0, 2.0)]).smoothed(0.5);
        // (0.5 * 4) / 0.5; (0.25 * 4) / 0.75; (0.125 * 4 + 0.5 * 2) / 0.875
        let expected = [(0.0, 4.0), (1.0, 4.0 / 3.0), (3.0, 1.5 / 0.875)];
        assert_eq!(smoothed.len(), 3);
        for (got, want) in smoothed.iter().zip(expected) {
            assert!((got.0 - want.0).abs() + (got.1 - want.1).abs() < 1e-12);
        }
    }

    #[test]
    fn runs_are_averaged_with_their_spread() {
        let runs = [vec![(1.0, 10.0), (2.0, 20.0), (3.0, 1.0)], vec![(3.0, 30.0), (4.0, 40.0)]];
        let series = Series::over_runs("mean", &runs);
        assert_eq!(series.points, [(2.0, 20.0), (3.0, 30.0)]);
        assert_eq!(series.band, [(10.0, 30.0), (20.0, 40.0)]);
        assert!(Series::over_runs("none", &[]).points.is_empty());
    }
}
