//! tmp
/// tmp
#[macro_export]
macro_rules! tagged {
    ($enum:ident, $tag:literal, { $($name:literal => $variant:ident ($body:ty)),+ $(,)? }) => {
        impl<'de> ::serde::Deserialize<'de> for $enum {
            fn deserialize<D: ::serde::Deserializer<'de>>(d: D) -> ::std::result::Result<Self, D::Error> {
                let mut v = ::serde_json::Value::deserialize(d)?;
                let name = v.as_object_mut().and_then(|m| m.remove($tag)).and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
                match name.as_str() { $($name => ::serde_json::from_value::<$body>(v).map($enum::$variant).map_err(::serde::de::Error::custom),)+ _ => Err(::serde::de::Error::custom("unknown")) }
            }
        }
    };
}
