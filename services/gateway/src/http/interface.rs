//! What every handler needs.

use super::limits::Limits;
use crate::{access::Tokens, config::GatewayConfig, letters::Letters, shared::Shared};
use push0_bus::Bus;
use push0_domain::Timestamp;
use push0_runtime::BoxError;
use std::sync::Arc;

/// What every handler needs.
#[derive(Clone)]
pub(crate) struct Interface {
    pub(super) tokens: Arc<Tokens>,
    pub(super) jaeger_url: Arc<str>,
    pub(super) bus: Bus,
    pub(super) shared: Shared,
    pub(super) letters: Letters,
    pub(super) limits: Limits,
}

impl Interface {
    pub(crate) fn new(config: &GatewayConfig, bus: Bus, shared: Shared) -> Result<Self, BoxError> {
        Ok(Self {
            tokens: Arc::new(config.tokens()?),
            jaeger_url: config.jaeger_url.trim_end_matches('/').into(),
            bus,
            shared,
            letters: Letters::default(),
            limits: Limits::default(),
        })
    }
    /// Returns when the broker's streams were made.
    pub(super) fn made_at(&self) -> Option<Timestamp> {
        self.shared.with(|model| model.made_at())
    }
}
