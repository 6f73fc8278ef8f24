//! The nodes of a source, in the order of its URLs. One is asked until it fails or is of no use; then the next one is.

use super::{
    answer::AnswerLimits,
    block::FetchedBlock,
    number::Number,
    rpc::{Rpc, RpcError},
};
use crate::decide::{futile::Futile, silence::Silence};
use push0_domain::pipeline::EthereumSource;
use push0_runtime::metrics::IntCounter;
use std::{
    fmt,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// The nodes of one chain.
pub(super) struct Nodes {
    all: Vec<Rpc>,
    current: AtomicUsize,
    /// Failures of requests for the newest block, and the moment from which their times count.
    silence: Mutex<Silence>,
    since: Instant,
    /// Looks at these nodes that led to nothing, over all terms of this process.
    futile: Mutex<Futile>,
    /// The chain that the first asked node serves, and the address of that node.
    chain: OnceLock<(String, String)>,
    /// Largest answer, in bytes.
    pub(super) answer_max: usize,
}

/// A failed request, with the address of its node.
#[derive(Debug)]
pub(super) struct Failed {
    shown: String,
    pub(super) error: RpcError,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.shown, self.error)
    }
}

impl Nodes {
    pub(super) fn new(source: &EthereumSource, opened: &IntCounter) -> Result<Self, String> {
        let answer_max = usize::try_from(source.answer_max_mib).unwrap_or(usize::MAX);
        let answer_max = answer_max.saturating_mul(1024 * 1024);
        let limits = AnswerLimits {
            timeout: source.timeout,
            bytes: answer_max,
        };
        let urls = source.rpc_urls.iter();
        let nodes = urls.map(|url| Rpc::new(url, limits, source.hash, opened.clone()));
        let all: Vec<Rpc> = nodes.collect::<Result<_, _>>()?;
        if all.is_empty() {
            return Err("source.rpc_url: expected at least one URL".to_owned());
        }
        Ok(Self {
            all,
            current: AtomicUsize::new(0),
            silence: Mutex::default(),
            since: Instant::now(),
            futile: Mutex::default(),
            chain: OnceLock::new(),
            answer_max,
        })
    }

    /// Returns the address of the node asked at present, in the form allowed in logs.
    pub(super) fn shown(&self) -> &str {
        self.current().1.shown()
    }

    /// Returns whether the node asked at present was slow of late.
    pub(super) fn are_strained(&self) -> bool {
        self.current().1.is_strained()
    }

    /// Returns the number of nodes.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// Requests the newest block. Counts failures in a row for [`Self::are_silent`].
    pub(super) async fn head(&self) -> Result<FetchedBlock, Failed> {
        let began = self.since.elapsed();
        let (at, rpc) = self.current();
        let answer = self.ask(rpc, Number::Latest, false, self.answer_max).await;
        let answer = answer.and_then(|block| block.ok_or(RpcError::NoHead));
        let answer = answer.map_err(|error| self.failed(at, error, true));
        let mut silence = self.silence.lock().unwrap_or_else(PoisonError::into_inner);
        match &answer {
            Ok(_) => silence.answered(),
            Err(_) => silence.failed(began),
        }
        answer
    }

    /// Returns whether every node has failed to give its newest block for `longest`.
    pub(super) fn are_silent(&self, longest: Duration) -> bool {
        let silence = self.silence.lock().unwrap_or_else(PoisonError::into_inner);
        silence.is_loss(self.since.elapsed(), longest, self.all.len())
    }

    /// Notes the begin of a term.
    pub(super) fn begin(&self) {
        self.futile().began();
    }

    /// Notes a look that was of use.
    pub(super) fn worked(&self) {
        self.futile().worked();
    }

    /// Notes a look that led to nothing. Returns whether another process should lead.
    pub(super) fn are_futile(&self) -> bool {
        self.futile().failed(self.since.elapsed())
    }

    fn futile(&self) -> MutexGuard<'_, Futile> {
        self.futile.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests a block as [`Rpc::block`] does.
    pub(super) async fn block(
        &self,
        number: Number,
        full: bool,
        answer_max: usize,
    ) -> Result<Option<FetchedBlock>, Failed> {
        let (at, rpc) = self.current();
        let answer = self.ask(rpc, number, full, answer_max).await;
        // An answer that is too large for several at once is asked for again by itself.
        let fits = answer_max >= self.answer_max;
        answer.map_err(|error| self.failed(at, error, fits))
    }

    /// Requests a block of a node, unless the node serves another chain than the first one. Blocks of another chain would look
    /// like a reorg of everything to a young pipeline.
    async fn ask(
        &self,
        rpc: &Rpc,
        number: Number,
        full: bool,
        answer_max: usize,
    ) -> Result<Option<FetchedBlock>, RpcError> {
        if self.all.len() > 1
            && let Some(found) = rpc.chain().await?
        {
            let first = || (found.to_owned(), rpc.shown().to_owned());
            let (expected, of) = self.chain.get_or_init(first);
            if expected != found {
                return Err(RpcError::OtherChain {
                    found: found.to_owned(),
                    expected: expected.clone(),
                    of: of.clone(),
                });
            }
        }
        rpc.block(number, full, answer_max).await
    }

    /// Asks whether the node still syncs.
    pub(super) async fn syncs(&self) -> Result<bool, Failed> {
        let (at, rpc) = self.current();
        rpc.syncs().await.map_err(|error| self.failed(at, error, true))
    }

    /// Takes the lack of a block that is not above the newest one for a failure of the node asked at present.
    pub(super) fn lacks(&self, number: u64) -> Failed {
        self.failed(self.current().0, RpcError::NoBlock { number }, true)
    }

    /// Asks the next node from now on, because of something that need not be a failure.
    pub(super) fn leave(&self, reason: &dyn fmt::Display) {
        self.move_on(self.current().0, reason);
    }

    fn current(&self) -> (usize, &Rpc) {
        let at = self.current.load(Ordering::Relaxed) % self.all.len();
        (at, &self.all[at])
    }

    fn failed(&self, at: usize, error: RpcError, fits: bool) -> Failed {
        if fits || !error.is_too_large() {
            self.move_on(at, &error);
        }
        Failed {
            shown: self.all[at].shown().to_owned(),
            error,
        }
    }

    fn move_on(&self, at: usize, reason: &dyn fmt::Display) {
        let next = (at + 1) % self.all.len();
        // Of several requests at once, the first failure moves on.
        let moved = self
            .current
            .compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
        if moved.is_ok() && next != at {
            let (from, to) = (self.all[at].shown(), self.all[next].shown());
            tracing::debug!(from, to, %reason, "asking the next node of the source");
        }
    }
}
