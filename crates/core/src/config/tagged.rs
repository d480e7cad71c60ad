//! Enums whose variant is named by a key (`name: sasrec`): serde's own `#[serde(tag)]` loses the key path of an error
//! inside and reports one error at a time. [`Tagged`] keeps both.
//!
//! ```
//! use anyo_core::tagged;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, Clone, Serialize, Deserialize)]
//! #[serde(deny_unknown_fields)]
//! pub struct SasrecConfig {
//!     pub max_len: usize,
//! }
//!
//! #[derive(Debug, Clone, Serialize)]
//! #[serde(tag = "name", rename_all = "snake_case")]
//! pub enum StudentConfig {
//!     Sasrec(SasrecConfig),
//!     Popularity,
//! }
//! tagged!(StudentConfig, "name", { "sasrec" => Sasrec(SasrecConfig), "popularity" => Popularity });
//!
//! let ok: StudentConfig = serde_json::from_str(r#"{"name": "sasrec", "max_len": 50}"#).unwrap();
//! assert!(matches!(ok, StudentConfig::Sasrec(SasrecConfig { max_len: 50 })));
//! let wrong = serde_json::from_str::<StudentConfig>(r#"{"name": "sasrec", "max_len": "long"}"#).unwrap_err();
//! assert_eq!(wrong.to_string(), "max_len: expected a whole number, got \"long\"");
//! let wrong = serde_json::from_str::<StudentConfig>(r#"{"name": "sasrek"}"#).unwrap_err();
//! assert_eq!(wrong.to_string(), "name: expected one of sasrec, popularity, got \"sasrek\"");
//! ```

use std::{fmt, marker::PhantomData};

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, MapAccess, VariantAccess, Visitor};

use super::{extract, value::Value};

/// The name by which the loader's own deserializer recognises a tagged enum.
pub(crate) const MAGIC: &str = "$anyo::tagged";

/// An enum whose variant is named by a key of the same map; see the [module](self). The macro [`tagged!`](crate::tagged)
/// writes the implementation.
pub trait Tagged: Sized {
    /// The key that names the variant.
    const TAG: &'static str;
    /// The possible names.
    const VARIANTS: &'static [&'static str];

    /// Reads the other keys of the map as the variant `name`, which is one of [`Self::VARIANTS`].
    ///
    /// # Errors
    /// What the variant's own `Deserialize` says; [`unit()`] for a variant without keys.
    fn decode<'de, D: Deserializer<'de>>(name: &str, body: D) -> Result<Self, D::Error>;
}

/// Implements [`Tagged`] and `Deserialize` for an enum; the example is in [`config::tagged`](crate::config::tagged).
#[macro_export]
macro_rules! tagged {
    ($enum:ident, $tag:literal, { $($name:literal => $variant:ident $(($body:ty))?),+ $(,)? }) => {
        impl $crate::config::tagged::Tagged for $enum {
            const TAG: &'static str = $tag;
            const VARIANTS: &'static [&'static str] = &[$($name),+];

            fn decode<'de, D: ::serde::Deserializer<'de>>(name: &str, body: D) -> ::std::result::Result<Self, D::Error> {
                match name {
                    $($name => $crate::tagged!(@body body, $enum, $variant $(, $body)?),)+
                    _ => Err(::serde::de::Error::unknown_variant(name, Self::VARIANTS)),
                }
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $enum {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> ::std::result::Result<Self, D::Error> {
                $crate::config::tagged::deserialize(deserializer)
            }
        }
    };
    (@body $b:ident, $enum:ident, $variant:ident) => {
        $crate::config::tagged::unit($b).map(|()| $enum::$variant)
    };
    (@body $b:ident, $enum:ident, $variant:ident, $body:ty) => {
        <$body as ::serde::Deserialize>::deserialize($b).map($enum::$variant)
    };
}

/// The `Deserialize` of a [`Tagged`] enum.
///
/// From the loader's tree every problem inside is collected with its full key; from any other format (JSON in a
/// checkpoint, YAML) the problems come as one error that names the keys.
///
/// # Errors
/// A missing or unknown tag, and every problem of the variant.
pub fn deserialize<'de, T: Tagged, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_newtype_struct(MAGIC, TaggedVisitor(PhantomData))
}

/// The body of a variant without keys.
///
/// # Errors
/// Any key beside the tag.
pub fn unit<'de, D: Deserializer<'de>>(body: D) -> Result<(), D::Error> {
    struct Empty;
    impl<'de> Visitor<'de> for Empty {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("no further keys")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            match map.next_key::<String>()? {
                Some(key) => Err(de::Error::unknown_field(&key, &[])),
                None => Ok(()),
            }
        }
    }
    body.deserialize_struct("unit", &[], Empty)
}

struct TaggedVisitor<T>(PhantomData<T>);

impl<'de, T: Tagged> Visitor<'de> for TaggedVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keys with `{}`", T::TAG)
    }

    /// The loader's deserializer: it finds the tag itself.
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_enum(T::TAG, T::VARIANTS, self)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<T, A::Error> {
        let (name, body) = access.variant::<String>()?;
        body.newtype_variant_seed(Body { name, variant: self.0 })
    }

    /// Any other format: read everything into a tree, then extract from that.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        let value = Value::deserialize(deserializer)?;
        extract::once(&value, self).map_err(de::Error::custom)
    }

    /// Formats that unwrap newtypes themselves arrive here with the map.
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        self.visit_newtype_struct(de::value::MapAccessDeserializer::new(map))
    }
}

/// Extracting a tagged enum from a tree once it is known to be one.
impl<'de, T: Tagged> DeserializeSeed<'de> for TaggedVisitor<T> {
    type Value = T;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserialize(deserializer)
    }
}

struct Body<T> {
    name: String,
    variant: PhantomData<T>,
}

impl<'de, T: Tagged> DeserializeSeed<'de> for Body<T> {
    type Value = T;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        T::decode(&self.name, deserializer)
    }
}
