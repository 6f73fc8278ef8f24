//! Rounding of measurements.

/// Rounds to a thousandth, below which all values are noise in the units used here.
pub(crate) fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
