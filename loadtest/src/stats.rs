//! Percentiles of one run, median and spread of several runs, and detection of growth.

use crate::record::Record;
pub(crate) use crate::rounding::round;
use hdrhistogram::Histogram;

/// Times in microseconds with three significant digits, up to ten minutes.
#[derive(Clone, Debug)]
pub(crate) struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        let bounds = Histogram::new_with_bounds(1, 600_000_000, 3);
        Self(bounds.expect("the bounds are those of the documentation"))
    }
}

impl Times {
    /// Adds a time. Times above the maximum count as the maximum.
    pub(crate) fn add(&mut self, micros: u64) {
        self.0.saturating_record(micros);
    }

    /// Returns the number of times.
    pub(crate) fn len(&self) -> u64 {
        self.0.len()
    }

    fn merge(&mut self, other: &Self) {
        // The sum fails only for different bounds, and all bounds are the same.
        let _ = self.0.add(&other.0);
    }

    /// Returns a quantile in milliseconds.
    pub(crate) fn ms(&self, quantile: f64) -> f64 {
        round(self.0.value_at_quantile(quantile) as f64 / 1000.0)
    }
}

impl FromIterator<u64> for Times {
    fn from_iter<I: IntoIterator<Item = u64>>(times: I) -> Self {
        let mut all = Self::default();
        times.into_iter().for_each(|time| all.add(time));
        all
    }
}

/// Reported quantiles, with the names of their fields.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999)];

/// Times of repeated windows, one histogram for each.
#[derive(Default)]
pub(crate) struct Windows(Vec<Times>);

impl Windows {
    /// Adds the times of a window.
    pub(crate) fn push(&mut self, times: impl IntoIterator<Item = u64>) {
        self.add(times.into_iter().collect());
    }

    /// Adds a window as a histogram.
    pub(crate) fn add(&mut self, times: Times) {
        self.0.push(times);
    }

    /// Returns the median of the windows' quantiles, in milliseconds.
    pub(crate) fn ms(&self, quantile: f64) -> f64 {
        median(&self.each(quantile))
    }

    /// Returns the number of times in all windows.
    pub(crate) fn len(&self) -> u64 {
        self.0.iter().map(Times::len).sum()
    }

    /// Adds the quantiles to a record, each as the median over the windows. A window is too short for p99.9,
    /// so p99.9 is taken over all times. Also adds the spread of the windows' medians and 99th percentiles.
    pub(crate) fn put(&self, prefix: &str, record: Record) -> Record {
        let mut all = Times::default();
        self.0.iter().for_each(|window| all.merge(window));
        let quoted = QUANTILES.iter().fold(record, |record, (name, quantile)| {
            let value = if *name == "p999" {
                all.ms(*quantile)
            } else {
                self.ms(*quantile)
            };
            record.with(&format!("{prefix}{name}_ms"), value)
        });
        quoted
            .with(
                &format!("{prefix}p50_spread_ms"),
                spread(&self.each(0.5)).to_vec(),
            )
            .with(
                &format!("{prefix}p99_spread_ms"),
                spread(&self.each(0.99)).to_vec(),
            )
    }

    fn each(&self, quantile: f64) -> Vec<f64> {
        self.0.iter().map(|window| window.ms(quantile)).collect()
    }
}

/// Returns the middle value, or the lower of the two middle values; 0 for no values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
        .get(sorted.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or_default()
}

/// Returns the least and the greatest value.
pub(crate) fn spread(values: &[f64]) -> [f64; 2] {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    [least, most]
}

/// Returns the rate a second in the middle eight tenths of ascending times in microseconds, without the start
/// and the end.
pub(crate) fn steady_rate(ascending: &[u64]) -> f64 {
    let (from, to) = (ascending.len() / 10, ascending.len() * 9 / 10);
    match (ascending.get(from), ascending.get(to)) {
        (Some(first), Some(last)) if last > first => (to - from) as f64 * 1e6 / (last - first) as f64,
        _ => 0.0,
    }
}

/// A straight line through values over time, with the uncertainty of its slope.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Trend {
    /// Change of the value in a unit of time.
    pub(crate) slope: f64,
    /// Twice the standard error of the slope: the true slope is this near with about 95 % probability.
    pub(crate) margin: f64,
}

impl Trend {
    /// Fits a line by least squares to pairs of time and value. Neighbouring samples of memory or latency are
    /// correlated, so fewer of them are independent. The error is widened by their correlation.
    pub(crate) fn of(samples: &[(f64, f64)]) -> Self {
        let count = samples.len() as f64;
        let (sum_t, sum_v) = samples.iter().fold((0.0, 0.0), |(t, v), s| (t + s.0, v + s.1));
        let (mean_t, mean_v) = (sum_t / count, sum_v / count);
        let spread_t: f64 = samples.iter().map(|s| (s.0 - mean_t).powi(2)).sum();
        let both: f64 = samples.iter().map(|s| (s.0 - mean_t) * (s.1 - mean_v)).sum();
        let slope = both / spread_t;
        let off: Vec<f64> = samples
            .iter()
            .map(|s| s.1 - mean_v - slope * (s.0 - mean_t))
            .collect();
        let squares: f64 = off.iter().map(|o| o * o).sum();
        let neighbours: f64 = off.windows(2).map(|pair| pair[0] * pair[1]).sum();
        let correlation = if squares > 0.0 {
            (neighbours / squares).clamp(0.0, 0.95)
        } else {
            0.0
        };
        let widened = (1.0 + correlation) / (1.0 - correlation);
        let error = (squares / (count - 2.0) / spread_t * widened).sqrt();
        Self {
            slope,
            margin: 2.0 * error,
        }
    }

    /// Returns whether the slope differs from zero by more than its margin.
    pub(crate) fn is_distinguishable(self) -> bool {
        self.slope.abs() > self.margin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trend_is_told_from_noise() {
        let noise = |n: u32| f64::from(n.wrapping_mul(2_654_435_761) >> 16) / 65_536.0;
        let flat: Vec<_> = (0..100).map(|n| (f64::from(n), 8.0 + noise(n))).collect();
        let rising: Vec<_> = flat.iter().map(|(t, v)| (*t, v + t / 50.0)).collect();
        assert!(!Trend::of(&flat).is_distinguishable(), "{:?}", Trend::of(&flat));
        let trend = Trend::of(&rising);
        assert!(
            trend.is_distinguishable() && (trend.slope - 0.02).abs() < trend.margin,
            "{trend:?}"
        );
        let constant: Vec<_> = (0..100).map(|n| (f64::from(n), 8.0)).collect();
        assert_eq!(
            Trend::of(&constant),
            Trend {
                slope: 0.0,
                margin: 0.0
            }
        );
    }

    #[test]
    fn the_steady_rate_ignores_how_it_starts_and_ends() {
        let mut times: Vec<u64> = (0..100).map(|n| 5_000_000 + n * 1000).collect();
        times[0] = 0;
        times[99] = 60_000_000;
        assert_eq!(steady_rate(&times), 1000.0);
        assert_eq!(steady_rate(&[]), 0.0);
    }

    #[test]
    fn percentiles_are_in_milliseconds() {
        let times: Times = (1..=1000).map(|n| n * 1000).collect();
        assert!((times.ms(0.5) - 500.0).abs() < 1.0 && times.len() == 1000);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), [1.0, 3.0]);
    }
}
