//! The broker's configuration: accounts, their users, and the subjects across their borders.

use crate::{
    Book, Control, Member, Rights,
    rights::{border_of, introductions, local, rights_of_control, rights_of_member},
};
use push0_domain::{ZkvmId, message::Role};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

/// The account of the control services, which alone has streams.
const PUSH0: &str = "PUSH0";
/// The account of the enroller.
const ENROLL: &str = "ENROLL";

const HEAD: &str = "\
# Who may say what to whom. Written by `push0 auth`: do not edit, the next change overwrites it.
# Holds public keys only.
";

/// Returns the name of the account of the provers or verifiers of a zkVM.
pub(crate) fn account_of(role: Role, zkvm: &ZkvmId) -> String {
    match role {
        Role::Prover => format!("PROVERS_{zkvm}"),
        Role::Verifier => format!("VERIFIERS_{zkvm}"),
    }
}

/// Returns the configuration of the broker's accounts, for its file to include.
pub fn configuration(book: &Book) -> String {
    let accounts = Accounts::of(book);
    let mut text = HEAD.to_owned();
    text.push_str("accounts {\n");
    accounts.write_push0(book, &mut text);
    for (name, account) in &accounts.members {
        account.write(name, &mut text);
    }
    if let Some(enroller) = book.control.get(&Control::Enroller) {
        let _ = write!(text, "  {ENROLL}: {{\n    users: [\n");
        let rights = rights_of_control(Control::Enroller, enroller, None);
        write_user(Control::Enroller.as_str(), enroller, &rights, &mut text);
        text.push_str("    ]\n    exports: [\n");
        for subject in introductions(Control::Enroller) {
            // Each replica answers.
            let _ = writeln!(
                text,
                "      {{ service: \"{subject}\", accounts: [{PUSH0}], response_type: stream }}"
            );
        }
        text.push_str("    ]\n  }\n");
        write_callout(&book.issuer, enroller, &mut text);
    } else {
        text.push_str("}\n");
    }
    text
}

/// Has the broker ask the enroller about every unknown client. A broker refuses a reload that changes this
/// section, so nothing in it depends on the members: users of unlisted accounts are never asked about.
fn write_callout(issuer: &str, enroller: &str, text: &mut String) {
    let _ = write!(
        text,
        "}}\nauthorization {{\n  auth_callout {{\n    issuer: {issuer}\n    account: {ENROLL}\n    auth_users: [{enroller}]\n    \
         allowed_accounts: [{ENROLL}]\n  }}\n}}\n",
    );
}

/// The accounts of provers and verifiers, by name.
struct Accounts<'a> {
    members: BTreeMap<String, Account<'a>>,
}

/// The account of the provers or the verifiers of one zkVM.
struct Account<'a> {
    role: Role,
    zkvm: &'a ZkvmId,
    users: Vec<(&'a push0_domain::ProverId, &'a Member)>,
}

/// The exports of the account `PUSH0`: accounts by subject.
type Exports = BTreeMap<String, BTreeSet<String>>;

impl<'a> Accounts<'a> {
    fn of(book: &'a Book) -> Self {
        let mut members: BTreeMap<String, Account<'a>> = BTreeMap::new();
        for (name, member) in &book.members {
            let account = members.entry(account_of(member.role, &member.zkvm));
            let account = account.or_insert_with(|| Account {
                role: member.role,
                zkvm: &member.zkvm,
                users: Vec::new(),
            });
            // The broker never sees the credential of a fleet: its replicas sign in with keys of their own.
            if !member.fleet {
                account.users.push((name, member));
            }
        }
        Self { members }
    }

    fn write_push0(&self, book: &Book, text: &mut String) {
        let _ = write!(text, "  {PUSH0}: {{\n    jetstream: enabled\n    users: [\n");
        let operator = book.control.get(&Control::Operator).map(String::as_str);
        for (user, key) in &book.control {
            if *user != Control::Enroller {
                let rights = rights_of_control(*user, key, operator);
                write_user(user.as_str(), key, &rights, text);
            }
        }
        text.push_str("    ]\n    exports: [\n");
        let (mut services, mut told) = (Exports::new(), String::new());
        for (name, account) in &self.members {
            let border = border_of(account.role, account.zkvm);
            for subject in border.services {
                services.entry(subject).or_default().insert(name.clone());
            }
            for subject in border.told {
                let _ = writeln!(
                    told,
                    "      {{ service: {{ account: \"{name}\", subject: \"{subject}\" }} }}"
                );
            }
        }
        let quoted = |accounts: &BTreeSet<String>| {
            let names: Vec<String> = accounts.iter().map(|name| format!("\"{name}\"")).collect();
            names.join(", ")
        };
        for (subject, accounts) in &services {
            // A request for work has many answers: deliveries, and the word that there are no more.
            let many = if subject.contains(".CONSUMER.MSG.NEXT.") {
                ", response_type: stream"
            } else {
                ""
            };
            let _ = writeln!(
                text,
                "      {{ service: \"{subject}\", accounts: [{}]{many} }}",
                quoted(accounts)
            );
        }
        if book.control.contains_key(&Control::Enroller) {
            for subject in introductions(Control::Enroller) {
                let _ = writeln!(
                    told,
                    "      {{ service: {{ account: {ENROLL}, subject: \"{subject}\" }} }}"
                );
            }
        }
        let _ = write!(text, "    ]\n    imports: [\n{told}    ]\n  }}\n");
    }
}

impl Account<'_> {
    fn write(&self, name: &str, text: &mut String) {
        let _ = write!(text, "  \"{name}\": {{\n    users: [\n");
        for (user, member) in &self.users {
            let rights = rights_of_member(self.role, self.zkvm, user, &member.key);
            write_user(user.as_str(), &member.key, &rights, text);
        }
        text.push_str("    ]\n    exports: [\n");
        let border = border_of(self.role, self.zkvm);
        for subject in &border.told {
            let _ = writeln!(text, "      {{ service: \"{subject}\", accounts: [{PUSH0}] }}");
        }
        text.push_str("    ]\n    imports: [\n");
        for subject in &border.services {
            let (of, here) = (
                format!("{{ account: {PUSH0}, subject: \"{subject}\" }}"),
                local(subject),
            );
            let to = if here == *subject {
                String::new()
            } else {
                format!(", to: \"{here}\"")
            };
            let _ = writeln!(text, "      {{ service: {of}{to} }}");
        }
        text.push_str("    ]\n  }\n");
    }
}

fn write_user(name: &str, key: &str, rights: &Rights, text: &mut String) {
    let _ = write!(
        text,
        "      # {name}\n      {{ nkey: {key}, permissions: {{\n        publish: {{ allow: [\n"
    );
    for subject in &rights.publish {
        let _ = writeln!(text, "          \"{subject}\"");
    }
    text.push_str("        ]");
    if !rights.deny.is_empty() {
        let _ = write!(text, ", deny: [{}]", list(&rights.deny));
    }
    let _ = write!(
        text,
        " }}\n        subscribe: {{ allow: [{}] }}\n      }} }}\n",
        list(&rights.subscribe)
    );
}

fn list(subjects: &[String]) -> String {
    let quoted: Vec<String> = subjects.iter().map(|subject| format!("\"{subject}\"")).collect();
    quoted.join(", ")
}
