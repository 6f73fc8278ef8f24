//! Bodies of the HTTP interface.

mod detail;
mod live;

pub use detail::{
    Account, AttemptView, BlockDetail, CancelRequest, Done, Edge, Graph, Leg, Letter, LetterAttempt, Node,
    Parts, PipelineDetail, ProofView, Refusal, Revision, Session, Span,
};
pub(crate) use live::millis;
pub use live::{
    Block, Change, Gone, HeldAttempt, Hold, PastAttempt, Pipeline, Problem, Prover, RangeOf, Snapshot,
    StageProgress, StreamLevel, Verdict, Zkvm,
};
