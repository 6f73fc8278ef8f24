//! The table of rights: the subjects each kind of user publishes and subscribes to.
//!
//! The rows follow the code: `shared/bus/src/provision.rs` (streams, consumers), `shared/domain/src/subject.rs`
//! (subjects) and each service. `tests/hostile` shows that the rows suffice and that all else is refused.
//!
//! In a row, `~` stands for the root of push0's subjects, `{zkvm}` and `{name}` for the member's. Rows of the broker's
//! API read as follows:
//!
//! | row | permits |
//! |---|---|
//! | `$JS.API.STREAM.INFO.*` | seeing that the streams exist, and the newest sequence |
//! | `$JS.API.DIRECT.GET.STREAM.…` | reading stored messages of these subjects |
//! | `$JS.API.STREAM.MSG.GET.STREAM` | reading any stored message from the leader of the stream |
//! | `$JS.API.CONSUMER.*.STREAM.NAME` | taking messages by this consumer |
//! | `$JS.ACK.STREAM.NAME.>` | ending deliveries of this consumer |
//! | `$KV.BUCKET.KEY` | writing facts |
//!
//! Rows outside of the tables let the operator ask services who they are ([`KNOWN`]).

use crate::Control;
use push0_domain::{ProverId, ZkvmId, message::Role, subject::ROOT};

/// The prefix of the broker's API inside the accounts of provers and verifiers. `$JS.API` would do, but the broker
/// answers there itself as well, and says that these accounts have no JetStream.
pub const API_PREFIX: &str = "$JS.push0.API";
/// The prefix of the broker's API in the account `PUSH0`.
const API: &str = "$JS.API";

/// Subjects that a user may publish and subscribe to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Subjects for publishing.
    pub publish: Vec<String>,
    /// Exceptions from `publish`.
    pub deny: Vec<String>,
    /// Subjects for subscriptions.
    pub subscribe: Vec<String>,
}

/// The rows of one kind of user.
struct Table {
    publish: &'static [&'static str],
    subscribe: &'static [&'static str],
}

/// The rows of provers or verifiers.
pub(crate) struct MemberTable {
    /// Messages of a member to the account `PUSH0`: services that its account imports, for every `{name}`.
    services: &'static [&'static str],
    /// Messages of a member to others of its account.
    local: &'static [&'static str],
    /// Messages to a member from the account `PUSH0`: services of its account that `PUSH0` imports, for every `{name}`.
    told: &'static [&'static str],
    /// Messages to a member from others of its account.
    heard: &'static [&'static str],
}

/// Publishes blocks, and writes the facts about them.
const INGESTER: Table = Table {
    publish: &[
        // Published messages.
        "~block.*",
        "~cancel.*",
        // Facts that the service writes.
        "$KV.push0_blocks.>",
        "$KV.push0_state.leader.ingester.*",
        "~leader.ingester.*",
        "$KV.push0_state.cursor.ingester.*",
        // Answers to `pipeline reset`.
        "$KV.push0_state.reset.ingester.*",
        // Witnesses, as blobs.
        "~blob._.ingester.>",
        "$JS.API.DIRECT.GET.PUSH0_BLOBS.~blob.>",
        "$JS.API.STREAM.MSG.GET.PUSH0_BLOBS",
        // Streams and facts that the service reads.
        "$JS.API.STREAM.INFO.*",
        "$JS.API.DIRECT.GET.KV_push0_blocks.$KV.push0_blocks.>",
        "$JS.API.STREAM.MSG.GET.KV_push0_blocks",
        "$JS.API.STREAM.MSG.GET.KV_push0_state",
        "$JS.API.DIRECT.GET.KV_push0_pipelines.$KV.push0_pipelines.>",
        "$JS.API.STREAM.MSG.GET.KV_push0_pipelines",
    ],
    subscribe: &["~leader.ingester.*", "$KV.push0_pipelines.*.*"],
};

/// Releases the tasks of ready stages to provers.
const DISPATCHER: Table = Table {
    publish: &[
        // Published messages.
        "~task.>",
        "~ended.*",
        "~dead.>",
        "~event.*.dead-letter",
        "~event.*.queue-held",
        "~event.*.queue-opened",
        "$JS.API.STREAM.PURGE.PUSH0_TASKS",
        // Facts that the service writes.
        "$KV.push0_state.leader.dispatcher",
        "~leader.dispatcher",
        "$KV.push0_state.cursor.dispatcher.*",
        "$KV.push0_state.held.*",
        // Deliveries: the consumers of blocks and cancels are named after pipelines.
        "$JS.API.CONSUMER.CREATE.PUSH0_BLOCKS.*",
        "$JS.API.CONSUMER.DELETE.PUSH0_BLOCKS.*",
        "$JS.API.CONSUMER.INFO.PUSH0_BLOCKS.*",
        "$JS.API.CONSUMER.MSG.NEXT.PUSH0_BLOCKS.*",
        "$JS.ACK.PUSH0_BLOCKS.*.>",
        "$JS.API.CONSUMER.CREATE.PUSH0_STAGES.dispatcher-stages",
        "$JS.API.CONSUMER.DELETE.PUSH0_STAGES.dispatcher-stages",
        "$JS.API.CONSUMER.INFO.PUSH0_STAGES.dispatcher-stages",
        "$JS.API.CONSUMER.MSG.NEXT.PUSH0_STAGES.dispatcher-stages",
        "$JS.ACK.PUSH0_STAGES.dispatcher-stages.>",
        // Streams and facts that the service reads.
        "$JS.API.STREAM.INFO.*",
        "$JS.API.DIRECT.GET.PUSH0_BLOCKS",
        "$JS.API.DIRECT.GET.PUSH0_STAGES",
        "$JS.API.STREAM.MSG.GET.PUSH0_BLOCKS",
        "$JS.API.STREAM.MSG.GET.PUSH0_STAGES",
        "$JS.API.STREAM.MSG.GET.PUSH0_TASKS",
        "$JS.API.STREAM.MSG.GET.PUSH0_LEASES",
        "$JS.API.STREAM.MSG.GET.PUSH0_PROOFS",
        "$JS.API.STREAM.MSG.GET.KV_push0_state",
        "$JS.API.DIRECT.GET.KV_push0_pipelines.$KV.push0_pipelines.>",
        "$JS.API.STREAM.MSG.GET.KV_push0_pipelines",
        "$JS.API.STREAM.MSG.GET.KV_push0_blocks",
        "$JS.API.STREAM.MSG.GET.KV_push0_seals",
    ],
    subscribe: &[
        "~leader.dispatcher",
        "~lease.>",
        "~result.>",
        "~verdict.>",
        "~check.>",
        "~proof.>",
    ],
};

/// Joins results, opens stages, stores records.
const COLLECTOR: Table = Table {
    publish: &[
        // Published messages.
        "~stage.>",
        "~proof.>",
        "~dead.>",
        "~event.*.dead-letter",
        "$JS.API.STREAM.PURGE.PUSH0_STAGES",
        // Facts that the service writes.
        "$KV.push0_state.leader.collector.*",
        "~leader.collector.*",
        // Lists too long for a record, as blobs.
        "~blob._.collector.>",
        "$JS.API.DIRECT.GET.PUSH0_BLOBS.~blob.>",
        "$JS.API.STREAM.MSG.GET.PUSH0_BLOBS",
        // Deliveries: the consumers are named after pipelines.
        "$JS.API.CONSUMER.CREATE.PUSH0_RESULTS.*",
        "$JS.API.CONSUMER.DELETE.PUSH0_RESULTS.*",
        "$JS.API.CONSUMER.INFO.PUSH0_RESULTS.*",
        "$JS.API.CONSUMER.MSG.NEXT.PUSH0_RESULTS.*",
        "$JS.ACK.PUSH0_RESULTS.*.>",
        // Streams and facts that the service reads.
        "$JS.API.STREAM.INFO.*",
        "$JS.API.DIRECT.GET.PUSH0_RESULTS",
        "$JS.API.STREAM.MSG.GET.PUSH0_RESULTS",
        "$JS.API.STREAM.MSG.GET.PUSH0_PROOFS",
        "$JS.API.STREAM.MSG.GET.PUSH0_STAGES",
        "$JS.API.STREAM.MSG.GET.PUSH0_CHECKS",
        "$JS.API.DIRECT.GET.KV_push0_blocks.$KV.push0_blocks.>",
        "$JS.API.STREAM.MSG.GET.KV_push0_blocks",
        "$JS.API.STREAM.MSG.GET.KV_push0_state",
        "$JS.API.DIRECT.GET.KV_push0_pipelines.$KV.push0_pipelines.>",
        "$JS.API.STREAM.MSG.GET.KV_push0_pipelines",
        "$JS.API.STREAM.MSG.GET.KV_push0_seals",
    ],
    subscribe: &["~leader.collector.*", "$KV.push0_pipelines.*.*"],
};

/// Takes tasks from dead, hung and slow provers.
const WATCHDOG: Table = Table {
    publish: &[
        // Published messages.
        "~control.*.*",
        "~result.*._.>",
        "~ended.*",
        "~stage.>",
        "~event._.*",
        // Asks the broker whether silent processes are connected.
        "~presence.*.*.*",
        // Facts that the service writes.
        "$KV.push0_state.leader.watchdog",
        "~leader.watchdog",
        "$KV.push0_state.quarantine.*.*",
        // Ends deliveries of others.
        "$JS.ACK.PUSH0_TASKS.>",
        "$JS.ACK.PUSH0_CHECKS.>",
        // Removes messages stored in spite of their acknowledgement.
        "$JS.API.STREAM.PURGE.PUSH0_TASKS",
        "$JS.API.STREAM.PURGE.PUSH0_CHECKS",
        // Makes room: facts, records and blobs of emitted blocks, and the oldest dead letters of a full DEAD.
        "$JS.API.STREAM.PURGE.KV_push0_blocks",
        "$JS.API.STREAM.PURGE.PUSH0_PROOFS",
        "$JS.API.STREAM.PURGE.PUSH0_BLOBS",
        "$JS.API.STREAM.MSG.GET.PUSH0_BLOBS",
        "$JS.API.STREAM.PURGE.PUSH0_DEAD",
        // Removes messages without a consumer, or beyond a participant's share.
        "$JS.API.STREAM.PURGE.PUSH0_RESULTS",
        "$JS.API.STREAM.MSG.GET.PUSH0_RESULTS",
        "$JS.API.STREAM.MSG.GET.PUSH0_STAGES",
        "$JS.API.DIRECT.GET.PUSH0_TASKS",
        "$JS.API.DIRECT.GET.PUSH0_CHECKS",
        "$JS.API.DIRECT.GET.PUSH0_STAGES",
        "$JS.API.DIRECT.GET.PUSH0_RESULTS",
        "$JS.API.STREAM.MSG.GET.PUSH0_DEAD",
        "$JS.API.DIRECT.GET.PUSH0_DEAD",
        "$JS.API.DIRECT.GET.PUSH0_PROOFS",
        "$JS.API.STREAM.MSG.GET.KV_push0_blocks",
        // Streams and facts that the service reads.
        "$JS.API.STREAM.INFO.*",
        "$JS.API.DIRECT.GET.PUSH0_BLOCKS",
        "$JS.API.STREAM.MSG.GET.PUSH0_BLOCKS",
        "$JS.API.STREAM.MSG.GET.PUSH0_LEASES",
        "$JS.API.STREAM.MSG.GET.PUSH0_TASKS",
        "$JS.API.STREAM.MSG.GET.PUSH0_CHECKS",
        "$JS.API.CONSUMER.INFO.PUSH0_TASKS.*",
        "$JS.API.CONSUMER.INFO.PUSH0_CHECKS.*",
        "$JS.API.STREAM.MSG.GET.PUSH0_PROOFS",
        "$JS.API.STREAM.MSG.GET.KV_push0_state",
        "$JS.API.DIRECT.GET.KV_push0_pipelines.$KV.push0_pipelines.>",
        "$JS.API.STREAM.MSG.GET.KV_push0_pipelines",
        "$JS.API.STREAM.MSG.GET.KV_push0_seals",
    ],
    subscribe: &[
        "~leader.watchdog",
        "~lease.>",
        "~result.>",
        "~verdict.>",
        "~ended.>",
        "~proof.>",
        "~notice.*.*.check-unverified",
        "~notice.*.*.check-paused",
    ],
};

/// Makes streams, buckets and consumers, and applies pipelines.
const PROVISION: Table = Table {
    publish: &[
        // Creates and updates streams, buckets and consumers.
        "$JS.API.INFO",
        "$JS.API.STREAM.CREATE.*",
        "$JS.API.STREAM.UPDATE.*",
        // Pipeline definitions.
        "$KV.push0_pipelines.>",
        "$JS.API.CONSUMER.CREATE.PUSH0_TASKS.>",
        "$JS.API.CONSUMER.CREATE.PUSH0_CHECKS.>",
        "$KV.push0_seals.keys",
        // Streams and facts that the service reads.
        "$JS.API.STREAM.INFO.*",
        "$JS.API.DIRECT.GET.KV_push0_pipelines.$KV.push0_pipelines.>",
        "$JS.API.STREAM.MSG.GET.KV_push0_pipelines",
        // Positions at which an applied pipeline continues.
        "$JS.API.STREAM.MSG.GET.KV_push0_state",
        "$JS.API.STREAM.MSG.GET.KV_push0_seals",
    ],
    subscribe: &[],
};

/// The command for people: sees everything but the seal, cancels, retries, drops.
const OPERATOR: Table = Table {
    publish: &[
        // Pipeline definitions.
        "$KV.push0_pipelines.>",
        "$JS.API.CONSUMER.CREATE.PUSH0_TASKS.>",
        "$JS.API.CONSUMER.CREATE.PUSH0_CHECKS.>",
        // Cancel, pipeline reset, dead retry, dead drop.
        "~cancel.*",
        "~stage.>",
        "$JS.API.STREAM.PURGE.PUSH0_DEAD",
        // Repair, and the requests of `pipeline reset`.
        "$KV.push0_state.>",
        "$KV.push0_blocks.>",
        "$JS.API.STREAM.MSG.DELETE.PUSH0_PROOFS",
        // Removal of stored messages by `push0 sweep`.
        "$JS.API.STREAM.PURGE.PUSH0_BLOBS",
        "$JS.API.STREAM.PURGE.PUSH0_RESULTS",
        "$JS.API.STREAM.PURGE.PUSH0_CHECKS",
        // Asks services who they are.
        "$SRV.>",
        // Streams and facts that the service reads.
        "$JS.API.STREAM.INFO.*",
        "$JS.API.DIRECT.GET.>",
        "$JS.API.STREAM.MSG.GET.*",
    ],
    subscribe: &[],
};

/// Shows the deployment to people; cancels and retries for those with the role `operate`.
const GATEWAY: Table = Table {
    publish: &[
        // Cancel, and retry of dead letters.
        "~cancel.*",
        "~stage.>",
        "$JS.API.STREAM.PURGE.PUSH0_DEAD",
        // Streams and facts that the service reads.
        "$JS.API.STREAM.INFO.*",
        "$JS.API.DIRECT.GET.>",
        "$JS.API.STREAM.MSG.GET.*",
    ],
    subscribe: &[
        "~block.>",
        "~task.>",
        "~lease.>",
        "~check.>",
        "~result.>",
        "~verdict.>",
        "~ended.>",
        "~proof.>",
        "~event.>",
    ],
};

/// Answers the broker's questions about replicas that sign in, in an account without anything else.
const ENROLLER: Table = Table {
    publish: &[
        "$SYS._INBOX.>",
        // Answers to an operator, who asks across the border of the account.
        "_R_.>",
    ],
    subscribe: &["$SYS.REQ.USER.AUTH"],
};

/// The services of the account `PUSH0` that answer an operator who they are, by the convention for NATS services. The
/// enroller answers too, across the border of its account. Provers and verifiers do not: leases tell of them.
const KNOWN: [Control; 5] = [
    Control::Ingester,
    Control::Dispatcher,
    Control::Collector,
    Control::Watchdog,
    Control::Gateway,
];

/// Rows that the wildcards of operator and gateway include and only control services may read.
const SEALS: &[&str] = &[
    "$JS.API.DIRECT.GET.KV_push0_seals",
    "$JS.API.DIRECT.GET.KV_push0_seals.>",
    "$JS.API.STREAM.MSG.GET.KV_push0_seals",
];

const PROVER: MemberTable = MemberTable {
    services: &[
        // Published messages: the last token of a report is the key that signed it.
        "~result.{zkvm}.{name}.*.*.*.*.*.*.{key}",
        "~check.{zkvm}.{name}.*.*.*.*.*.*.{key}",
        "~lease.{zkvm}.{name}",
        // Deliveries of its consumer.
        "$JS.API.CONSUMER.INFO.PUSH0_TASKS.prover-{zkvm}",
        "$JS.API.CONSUMER.MSG.NEXT.PUSH0_TASKS.prover-{zkvm}",
        "$JS.ACK.PUSH0_TASKS.prover-{zkvm}.>",
        // Inputs and outputs.
        "~blob.{zkvm}.{name}.>",
        "$JS.API.DIRECT.GET.PUSH0_BLOBS.~blob.>",
        "$JS.API.STREAM.MSG.GET.PUSH0_BLOBS",
    ],
    local: &["~presence.{zkvm}.{name}"],
    told: &["~control.{zkvm}.{name}", "~presence.{zkvm}.{name}.*"],
    heard: &["~presence.{zkvm}.{name}"],
};

const VERIFIER: MemberTable = MemberTable {
    services: &[
        // Published messages.
        "~verdict.{zkvm}.{name}.>",
        "~lease.{zkvm}.{name}",
        "~notice.{zkvm}.{name}.*",
        // Deliveries of its consumer.
        "$JS.API.CONSUMER.INFO.PUSH0_CHECKS.verifier-{zkvm}",
        "$JS.API.CONSUMER.MSG.NEXT.PUSH0_CHECKS.verifier-{zkvm}",
        "$JS.ACK.PUSH0_CHECKS.verifier-{zkvm}.>",
        // Proofs to read.
        "$JS.API.DIRECT.GET.PUSH0_BLOBS.~blob.>",
        "$JS.API.STREAM.MSG.GET.PUSH0_BLOBS",
        // Facts to compare a proof with.
        "$JS.API.STREAM.INFO.KV_push0_blocks",
        "$JS.API.DIRECT.GET.KV_push0_blocks.$KV.push0_blocks.>",
        "$JS.API.STREAM.MSG.GET.KV_push0_blocks",
        "$JS.API.STREAM.INFO.KV_push0_pipelines",
        "$JS.API.DIRECT.GET.KV_push0_pipelines.$KV.push0_pipelines.>",
        "$JS.API.STREAM.MSG.GET.KV_push0_pipelines",
    ],
    local: &["~presence.{zkvm}.{name}"],
    told: &["~control.{zkvm}.{name}", "~presence.{zkvm}.{name}.*"],
    heard: &["~presence.{zkvm}.{name}"],
};

fn table_of(role: Role) -> &'static MemberTable {
    match role {
        Role::Prover => &PROVER,
        Role::Verifier => &VERIFIER,
    }
}

/// Returns the filter for a user's private inbox. Clients use the prefix `_INBOX_` and their public key.
fn inbox(key: &str) -> String {
    format!("_INBOX_{key}.>")
}

/// Returns the subjects on which a service is asked who it is.
pub(crate) fn introductions(user: Control) -> [String; 3] {
    let name = format!("push0-{}", user.as_str());
    [
        "$SRV.*".to_owned(),
        format!("$SRV.*.{name}"),
        format!("$SRV.*.{name}.*"),
    ]
}

/// Returns the rights of a control user with this public key. Services answer to the inbox of the operator's public key.
pub fn rights_of_control(user: Control, key: &str, operator: Option<&str>) -> Rights {
    let table = match user {
        Control::Ingester => &INGESTER,
        Control::Dispatcher => &DISPATCHER,
        Control::Collector => &COLLECTOR,
        Control::Watchdog => &WATCHDOG,
        Control::Provision => &PROVISION,
        Control::Operator => &OPERATOR,
        Control::Gateway => &GATEWAY,
        Control::Enroller => &ENROLLER,
    };
    let rooted = |rows: &[&str]| rows.iter().map(|row| root(row)).collect::<Vec<_>>();
    let reads_all = matches!(user, Control::Operator | Control::Gateway);
    let denied = if reads_all { SEALS } else { &[] };
    let (mut publish, mut subscribe) = (rooted(table.publish), rooted(table.subscribe));
    let is_known = KNOWN.contains(&user);
    if is_known || user == Control::Enroller {
        subscribe.extend(introductions(user));
    }
    if is_known {
        // The shared inbox is that of a client without restrictions, as for repairs: no user here may listen there.
        publish.push("_INBOX.>".to_owned());
        publish.extend(operator.map(inbox));
    }
    subscribe.push(inbox(key));
    Rights {
        publish,
        deny: rooted(denied),
        subscribe,
    }
}

/// Returns the rights of a prover or verifier with this name and public key, inside the account of its kind.
pub fn rights_of_member(role: Role, zkvm: &ZkvmId, name: &ProverId, key: &str) -> Rights {
    let table = table_of(role);
    let fill = |row: &&str| local(&filled(row, zkvm, name.as_str(), key));
    let publish = table.services.iter().chain(table.local).map(fill).collect();
    let heard = table.told.iter().chain(table.heard).map(fill);
    Rights {
        publish,
        deny: Vec::new(),
        subscribe: heard.chain([inbox(key)]).collect(),
    }
}

/// The traffic between the account `PUSH0` and that of the provers or verifiers of a zkVM. All of it is services:
/// a reload can crash a broker while a client subscribes to an imported stream (docs/adr/0039).
pub(crate) struct Border {
    /// The services of `PUSH0` that the account imports.
    pub(crate) services: Vec<String>,
    /// The services of the account that `PUSH0` imports, to speak to members.
    pub(crate) told: Vec<String>,
}

pub(crate) fn border_of(role: Role, zkvm: &ZkvmId) -> Border {
    let table = table_of(role);
    let of_all = |rows: &[&str]| rows.iter().map(|row| filled(row, zkvm, "*", "*")).collect();
    Border {
        services: of_all(table.services),
        told: of_all(table.told),
    }
}

/// Returns the subject by which members reach a service of the account `PUSH0`.
pub(crate) fn local(service: &str) -> String {
    match service.strip_prefix(API) {
        Some(call) => format!("{API_PREFIX}{call}"),
        None => service.to_owned(),
    }
}

fn root(row: &str) -> String {
    row.replace('~', &format!("{ROOT}."))
}

fn filled(row: &str, zkvm: &ZkvmId, name: &str, key: &str) -> String {
    root(row)
        .replace("{zkvm}", zkvm.as_str())
        .replace("{name}", name)
        .replace("{key}", key)
}
