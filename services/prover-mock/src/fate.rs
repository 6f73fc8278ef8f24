//! Outcome of an attempt, drawn from the seed, the task and the attempt, and nothing else.

use crate::MockConfig;
use push0_domain::message::TaskHeader;
use std::time::Duration;

/// Outcome of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The attempt returns a proof.
    Proof,
    /// The attempt returns a proof that the verifier refuses.
    False,
    /// The attempt fails with the configured class.
    Failure,
    /// The attempt never ends.
    Hang,
    /// The attempt aborts the process.
    Crash,
    /// The attempt ends in a panic.
    Panic,
}

/// Draws the duration and the outcome of an attempt.
pub(crate) fn fate(config: &MockConfig, header: &TaskHeader) -> (Duration, Fate) {
    let mut dice = Dice::new(config.seed, &header.attempt_id().to_string());
    // All are drawn in a fixed order, so changing one rate leaves the other draws unchanged.
    let [crashes, hangs, fails, lies, panics, crash_at] = std::array::from_fn(|_| dice.unit());
    let time = time(config, header.context.facts.gas_used, &mut dice);
    if crashes < config.crash_rate {
        (time.mul_f64(crash_at), Fate::Crash)
    } else if hangs < config.hang_rate {
        (time, Fate::Hang)
    } else if fails < config.failure_rate {
        (time, Fate::Failure)
    } else if lies < config.false_rate {
        (time, Fate::False)
    } else if panics < config.panic_rate {
        (time, Fate::Panic)
    } else {
        (time, Fate::Proof)
    }
}

fn time(config: &MockConfig, gas_used: u64, dice: &mut Dice) -> Duration {
    if let (Some(min), Some(max)) = (config.time_min, config.time_max) {
        return min + (max - min).mul_f64(dice.unit());
    }
    if let (Some(mean), Some(p95)) = (config.lognormal_mean, config.lognormal_p95) {
        return lognormal(mean, p95, dice.normal());
    }
    if let Some(nanos) = config.per_gas {
        // The result is exact to a microsecond for any real block.
        return Duration::from_nanos((nanos * gas_used as f64) as u64);
    }
    config.time.unwrap_or(Duration::from_secs(1))
}

/// 95th percentile of the standard normal distribution.
const Z95: f64 = 1.644_853_6;

/// Maps a standard normal draw to a lognormal one. `mean = exp(mu + s^2/2)` and `p95 = exp(mu + Z95 s)`
/// have two roots for s; the smaller one has the tail of real proofs.
fn lognormal(mean: Duration, p95: Duration, normal: f64) -> Duration {
    let ratio = p95.div_duration_f64(mean).ln();
    let s = Z95 - (Z95 * Z95 - 2.0 * ratio).max(0.0).sqrt();
    mean.mul_f64((s * normal - s * s / 2.0).exp())
}

/// Endless stream of random numbers derived from a seed.
struct Dice(blake3::OutputReader);

impl Dice {
    fn new(seed: u64, what: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("push0 prover-mock dice v1");
        hasher.update(&seed.to_le_bytes()).update(what.as_bytes());
        Self(hasher.finalize_xof())
    }

    /// Draws uniformly from 0 (included) to 1 (excluded).
    fn unit(&mut self) -> f64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        // An `f64` holds 53 bits.
        (u64::from_le_bytes(bytes) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Draws from the standard normal distribution (Box-Muller).
    fn normal(&mut self) -> f64 {
        let (radius, angle) = (1.0 - self.unit(), self.unit());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(config: &MockConfig) -> Vec<Duration> {
        let draw = |task: u32| time(config, 30_000_000, &mut Dice::new(config.seed, &task.to_string()));
        let mut times: Vec<_> = (0..20_000).map(draw).collect();
        times.sort();
        times
    }

    fn seconds(times: &[Duration]) -> f64 {
        times.iter().sum::<Duration>().as_secs_f64() / times.len() as f64
    }

    #[test]
    fn times_are_spread_as_configured() {
        let config = MockConfig {
            lognormal_mean: Some(Duration::from_secs(7)),
            lognormal_p95: Some(Duration::from_secs(11)),
            ..MockConfig::default()
        };
        let drawn = times(&config);
        let p95 = drawn[drawn.len() * 95 / 100].as_secs_f64();
        assert!((seconds(&drawn) - 7.0).abs() < 0.1, "mean {}", seconds(&drawn));
        assert!((p95 - 11.0).abs() < 0.3, "p95 {p95}");

        let config = MockConfig {
            time_min: Some(Duration::from_secs(1)),
            time_max: Some(Duration::from_secs(4)),
            ..MockConfig::default()
        };
        let drawn = times(&config);
        assert!(drawn[0] >= Duration::from_secs(1) && drawn[drawn.len() - 1] < Duration::from_secs(4));
        assert!((seconds(&drawn) - 2.5).abs() < 0.05);
    }

    #[test]
    fn time_follows_gas_or_is_constant() {
        let config = MockConfig {
            per_gas: Some(200.0),
            ..MockConfig::default()
        };
        assert_eq!(times(&config)[0], Duration::from_secs(6));
        assert_eq!(times(&MockConfig::default())[0], Duration::from_secs(1));
        let config = MockConfig {
            time: Some(Duration::ZERO),
            ..MockConfig::default()
        };
        assert_eq!(times(&config)[0], Duration::ZERO);
    }

    #[test]
    fn the_same_seed_draws_the_same_and_another_one_does_not() {
        let draw = |seed, what| Dice::new(seed, what).unit();
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
    }
}
