//! Reads a type from the merged values. Every refusal carries the full path of the key.
//!
//! The deserializer of the `config` crate names neither the path of an unknown key nor the variants of an
//! enum, and converts numbers to text and back. This deserializer replaces it.

use ::config::{Map, Value, ValueKind};
use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::refusal::{Refusal, join};

/// A value and its path, such as `a.b[2].c`; the root's path is empty.
pub(super) struct Node<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> Node<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self {
            value,
            path: String::new(),
        }
    }

    /// Returns the text of an environment variable, whose type depends on the target. Values of the file
    /// have no origin and already have a type.
    fn environment_text(&self) -> Option<&'a str> {
        match (&self.value.kind, self.value.origin()) {
            (ValueKind::String(text), Some(_)) => Some(text),
            _ => None,
        }
    }

    fn entries(&self, table: &'a Map<String, Value>) -> impl Iterator<Item = (&'a str, Node<'a>)> {
        let path = self.path.clone();
        table.iter().map(move |(key, value)| {
            (
                key.as_str(),
                Node {
                    value,
                    path: join(&path, key),
                },
            )
        })
    }
}

impl<'de> IntoDeserializer<'de, Refusal> for Node<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Parses the text of a variable as a number or a boolean when the target asks for one.
macro_rules! parse_as {
    ($($method:ident)* => $parsers:tt) => { $( parse_as!(@ $method $parsers); )* };
    (@ $method:ident { $($parsed:ty => $visit:ident),* }) => {
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
            $( if let Some(value) = self.environment_text().and_then(|t| t.parse::<$parsed>().ok()) {
                return visitor.$visit(value).map_err(|refusal: Refusal| refusal.at(&self.path));
            } )*
            self.deserialize_any(visitor)
        }
    };
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match &self.value.kind {
            ValueKind::Nil => visitor.visit_unit(),
            ValueKind::Boolean(value) => visitor.visit_bool(*value),
            ValueKind::I64(value) => visitor.visit_i64(*value),
            ValueKind::I128(value) => visitor.visit_i128(*value),
            ValueKind::U64(value) => visitor.visit_u64(*value),
            ValueKind::U128(value) => visitor.visit_u128(*value),
            ValueKind::Float(value) => visitor.visit_f64(*value),
            ValueKind::String(value) => visitor.visit_str(value),
            ValueKind::Array(items) => {
                let node = |(i, value)| Node {
                    value,
                    path: format!("{}[{i}]", self.path),
                };
                visitor.visit_seq(SeqDeserializer::new(items.iter().enumerate().map(node)))
            }
            ValueKind::Table(table) => visitor.visit_map(MapDeserializer::new(self.entries(table))),
        }
        .map_err(|refusal: Refusal| refusal.at(&self.path))
    }

    parse_as!(deserialize_bool => { bool => visit_bool });
    parse_as!(deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        => { i64 => visit_i64, u64 => visit_u64 });
    parse_as!(deserialize_f32 deserialize_f64 => { f64 => visit_f64 });

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        if matches!(self.value.kind, ValueKind::Nil) || self.environment_text() == Some("") {
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let Some(text) = self.environment_text() else {
            return self.deserialize_any(visitor);
        };
        let origin = self.value.origin().map(str::to_owned);
        let items: Vec<Value> = (text.split(',').map(str::trim).filter(|item| !item.is_empty()))
            .map(|item| Value::new(origin.as_ref(), item))
            .collect();
        let node = |value| Node {
            value,
            path: self.path.clone(),
        };
        visitor.visit_seq(SeqDeserializer::new(items.iter().map(node)))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        match &self.value.kind {
            ValueKind::String(variant) => visitor.visit_enum(variant.as_str().into_deserializer()),
            ValueKind::Table(table) => visitor.visit_enum(MapAccessDeserializer::new(MapDeserializer::new(
                self.entries(table),
            ))),
            _ => return self.deserialize_any(visitor),
        }
        .map_err(|refusal: Refusal| refusal.at(&self.path))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let path = self.path.clone();
        visitor
            .visit_newtype_struct(self)
            .map_err(|refusal: Refusal| refusal.at(&path))
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct
        identifier ignored_any
    }
}
