//! Who may do what: bearer tokens with a role, and rules for browsers where there are none.

use serde::Deserialize;
use std::{net::IpAddr, path::Path};
use subtle::ConstantTimeEq;

/// Shortest secret of a token.
const SECRET_MIN: usize = 16;

/// The rights of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The client may look.
    Read,
    /// The client may look, cancel blocks, and retry dead letters.
    Operate,
}

impl Role {
    /// Returns the role's name in files and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }
}

/// The tokens of a deployment.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    #[serde(default)]
    token: Vec<Token>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    /// The name of the holder, for logs.
    name: String,
    role: Role,
    secret: String,
}

/// The file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTokens {
    /// The file cannot be read.
    #[error("a readable file of tokens: {0}")]
    Unreadable(#[from] std::io::Error),
    /// The file is no list of tokens.
    #[error("[[token]] sections with name, role (read or operate) and secret: {0}")]
    Malformed(#[from] Box<toml::de::Error>),
    /// A secret is too short.
    #[error("a secret of at least {SECRET_MIN} characters for token `{0}`")]
    Short(String),
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The request carries no token.
    NoToken,
    /// The token is not one of the deployment's.
    WrongToken,
    /// The token's role does not suffice.
    WrongRole,
    /// The request came through a page or a name of somewhere else.
    Foreign,
}

/// The holder of a token, or anybody on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The holder's name, for logs.
    pub name: String,
    /// The holder's rights.
    pub role: Role,
}

/// The parts of a request that decide about access.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// The header `Authorization`.
    pub authorization: Option<&'a str>,
    /// The header `Host`.
    pub host: Option<&'a str>,
    /// The header `Origin`, which browsers send.
    pub origin: Option<&'a str>,
}

impl Tokens {
    /// Reads tokens from a file.
    ///
    /// # Errors
    /// The file cannot be read, or is not a valid list of tokens.
    pub fn read(path: &Path) -> Result<Self, InvalidTokens> {
        let tokens: Self = toml::from_str(&std::fs::read_to_string(path)?).map_err(Box::new)?;
        let short = tokens.token.iter().find(|token| token.secret.len() < SECRET_MIN);
        match short {
            Some(token) => Err(InvalidTokens::Short(token.name.clone())),
            None => Ok(tokens),
        }
    }

    /// Returns whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.token.is_empty()
    }

    /// Returns the caller of a request if the caller has at least the rights of `role`.
    ///
    /// A page of another site cannot reach the gateway: its origin is another one, and a name that it makes point
    /// to this machine is no name of this machine.
    ///
    /// # Errors
    /// The reason why the request is refused.
    pub fn admit(&self, request: Request<'_>, role: Role) -> Result<Caller, Denied> {
        let is_foreign = request.origin.is_some_and(|origin| {
            let from = origin.split_once("://").map_or(origin, |(_, from)| from);
            Some(from) != request.host
        });
        if is_foreign {
            return Err(Denied::Foreign);
        }
        if self.is_empty() {
            let is_local = request.host.is_some_and(is_loopback);
            let caller = Caller {
                name: "local".into(),
                role: Role::Operate,
            };
            return if is_local {
                Ok(caller)
            } else {
                Err(Denied::Foreign)
            };
        }
        let given = request.authorization.ok_or(Denied::NoToken)?;
        let given = given.strip_prefix("Bearer ").ok_or(Denied::WrongToken)?.trim();
        // Every secret is compared, so that the time tells nothing.
        let mut found = None;
        for token in &self.token {
            if bool::from(token.secret.as_bytes().ct_eq(given.as_bytes())) {
                found = Some(token);
            }
        }
        let token = found.ok_or(Denied::WrongToken)?;
        if token.role < role {
            return Err(Denied::WrongRole);
        }
        Ok(Caller {
            name: token.name.clone(),
            role: token.role,
        })
    }
}

/// Returns whether a `Host` header names this machine.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        toml::from_str(
            "[[token]]\nname = \"a\"\nrole = \"read\"\nsecret = \"reading-reading-1\"\n\
             [[token]]\nname = \"b\"\nrole = \"operate\"\nsecret = \"operating-operate\"\n",
        )
        .unwrap()
    }

    fn with(authorization: &str) -> Request<'_> {
        Request {
            authorization: Some(authorization),
            host: Some("gateway.example"),
            origin: None,
        }
    }

    #[test]
    fn a_token_has_the_rights_of_its_role() {
        let role = |text, role| tokens().admit(with(text), role).map(|caller| caller.role);
        assert_eq!(role("Bearer reading-reading-1", Role::Read), Ok(Role::Read));
        assert_eq!(
            role("Bearer reading-reading-1", Role::Operate),
            Err(Denied::WrongRole)
        );
        assert_eq!(role("Bearer operating-operate", Role::Operate), Ok(Role::Operate));
        assert_eq!(
            role("Bearer operating-operat", Role::Read),
            Err(Denied::WrongToken)
        );
        assert_eq!(
            role("Basic operating-operate", Role::Read),
            Err(Denied::WrongToken)
        );
        let nothing = Request {
            authorization: None,
            ..with("")
        };
        assert_eq!(tokens().admit(nothing, Role::Read), Err(Denied::NoToken));
    }

    #[test]
    fn without_tokens_only_this_machine_is_admitted() {
        let admit = |host, origin| {
            let request = Request {
                authorization: None,
                host,
                origin,
            };
            Tokens::default()
                .admit(request, Role::Operate)
                .map(|caller| caller.role)
        };
        for host in ["localhost:8480", "127.0.0.1:8480", "[::1]:8480", "localhost"] {
            assert_eq!(admit(Some(host), None), Ok(Role::Operate), "{host}");
        }
        // A name of somebody else that points to this machine.
        assert_eq!(admit(Some("evil.example:8480"), None), Err(Denied::Foreign));
        assert_eq!(admit(None, None), Err(Denied::Foreign));
        assert_eq!(
            admit(Some("localhost:8480"), Some("http://localhost:8480")),
            Ok(Role::Operate)
        );
        assert_eq!(
            admit(Some("localhost:8480"), Some("http://evil.example")),
            Err(Denied::Foreign)
        );
        assert_eq!(admit(Some("localhost:8480"), Some("null")), Err(Denied::Foreign));
    }

    #[test]
    fn a_short_secret_is_refused_with_its_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "[[token]]\nname = \"a\"\nrole = \"read\"\nsecret = \"short\"\n",
        )
        .unwrap();
        let error = Tokens::read(file.path()).err().unwrap().to_string();
        assert!(error.contains("at least 16 characters for token `a`"), "{error}");
    }
}
