//! The only module that encodes message bodies and decodes them.
//!
//! The same types have two encodings: bincode between push0's own services and JSON for adapters in other
//! languages. The header `Push0-Encoding` tells them apart; without the header a body is JSON, as a
//! person with a NATS client would send it. The bincode crate is frozen and no longer maintained. Its
//! format is simple and stable, no other module of the project uses the crate, and [`SCHEMA`] protects
//! against incompatible changes.

use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, str::FromStr};

/// Version of the message bodies. bincode bodies hold no field names, so a body of another
/// version is refused.
pub const SCHEMA: &str = "1";
/// Name of the header for [`SCHEMA`].
pub const SCHEMA_HEADER: &str = "Push0-Schema";
/// Name of the header for the [`Encoding`].
pub const ENCODING_HEADER: &str = "Push0-Encoding";
/// Largest body in bytes, for encoding and decoding: the broker's default limit for messages.
pub const BODY_MAX: usize = 1024 * 1024;

/// Encoding of a message body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// bincode 2 in its standard configuration (little endian, variable-length integers).
    Bincode,
    /// JSON, the default when a message names no encoding.
    #[default]
    Json,
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bincode => "bincode",
            Self::Json => "json",
        })
    }
}

impl FromStr for Encoding {
    type Err = CodecError;
    fn from_str(text: &str) -> Result<Self, CodecError> {
        match text {
            "bincode" => Ok(Self::Bincode),
            "json" => Ok(Self::Json),
            _ => Err(CodecError::Encoding(text.chars().take(40).collect())),
        }
    }
}

/// Error while encoding or decoding a message body.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The encoding header names an unknown encoding.
    #[error("unknown {ENCODING_HEADER} `{0}`: expected `bincode` or `json`")]
    Encoding(String),
    /// The schema header names another version than [`SCHEMA`].
    #[error("{SCHEMA_HEADER} is `{0}`: expected `{SCHEMA}`")]
    Schema(String),
    /// The body is larger than [`BODY_MAX`]; holds its size in bytes.
    #[error("body of {0} bytes: expected at most {BODY_MAX}")]
    TooLarge(usize),
    /// The body was decoded, but the request in it cannot be carried out. Holds the reason.
    #[error("{0}")]
    Refused(String),
    /// The bytes are not a valid body of the expected type.
    #[error("not a valid {encoding} body: {reason}")]
    Malformed {
        /// The encoding that was tried.
        encoding: Encoding,
        /// The error text of the decoder or encoder.
        reason: String,
    },
}

/// Encodes a body. Fails if the result is larger than [`BODY_MAX`].
pub fn encode<T: Serialize>(value: &T, encoding: Encoding) -> Result<Vec<u8>, CodecError> {
    let malformed = |reason: String| CodecError::Malformed { encoding, reason };
    let bytes = match encoding {
        Encoding::Bincode => bincode::serde::encode_to_vec(value, bincode::config::standard())
            .map_err(|e| malformed(e.to_string()))?,
        Encoding::Json => serde_json::to_vec(value).map_err(|e| malformed(e.to_string()))?,
    };
    if bytes.len() > BODY_MAX {
        Err(CodecError::TooLarge(bytes.len()))
    } else {
        Ok(bytes)
    }
}

/// Decodes a body. Left-over bytes are an error, because they mean that the body is of another type.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], encoding: Encoding) -> Result<T, CodecError> {
    if bytes.len() > BODY_MAX {
        return Err(CodecError::TooLarge(bytes.len()));
    }
    let malformed = |reason: String| CodecError::Malformed { encoding, reason };
    match encoding {
        Encoding::Json => serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string())),
        Encoding::Bincode => {
            // The limit bounds the memory that a hostile length prefix can make the decoder allocate.
            let config = bincode::config::standard().with_limit::<BODY_MAX>();
            let (value, read) =
                bincode::serde::decode_from_slice(bytes, config).map_err(|e| malformed(e.to_string()))?;
            if read == bytes.len() {
                Ok(value)
            } else {
                Err(malformed(format!("{} bytes left over", bytes.len() - read)))
            }
        }
    }
}

/// Decodes a body according to its message's headers. `schema` and `encoding` are the values of
/// [`SCHEMA_HEADER`] and [`ENCODING_HEADER`]; a missing schema counts as [`SCHEMA`], a missing
/// encoding as JSON.
pub fn decode_described<T: DeserializeOwned>(
    bytes: &[u8],
    schema: Option<&str>,
    encoding: Option<&str>,
) -> Result<T, CodecError> {
    if let Some(other) = schema.filter(|s| *s != SCHEMA) {
        return Err(CodecError::Schema(other.chars().take(40).collect()));
    }
    decode(bytes, encoding.map(str::parse).transpose()?.unwrap_or_default())
}
