//! Percentiles of one run, and the median and spread of several.

use hdrhistogram::Histogram;

/// Times in microseconds, to three digits, up to ten minutes.
#[derive(Clone, Debug)]
pub(crate) struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        let bounds = Histogram::new_with_bounds(1, 600_000_000, 3);
        Self(bounds.expect("the bounds are those of the documentation"))
    }
}

impl Times {
    /// Adds one time; longer than the longest counts as the longest.
    pub(crate) fn add(&mut self, micros: u64) {
        self.0.saturating_record(micros);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.0.len()
    }

    /// A quantile in milliseconds.
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

/// The middle value; of an even number, the lower one. 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
        .get(sorted.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or_default()
}

/// The least and the greatest.
pub(crate) fn spread(values: &[f64]) -> [f64; 2] {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    [least, most]
}

/// To a thousandth: what is below it is noise in all our units.
pub(crate) fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The rate in the middle eight tenths of ascending times in microseconds: without the start and the end.
pub(crate) fn steady_rate(ascending: &[u64]) -> f64 {
    let (from, to) = (ascending.len() / 10, ascending.len() * 9 / 10);
    match (ascending.get(from), ascending.get(to)) {
        (Some(first), Some(last)) if last > first => (to - from) as f64 * 1e6 / (last - first) as f64,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
