//! C5, D5, D7: values on the command line.

use proptest::prelude::*;

use super::{
    lexer::{Parsed, parse},
    value::{Kind, Value},
};

fn one(text: &str) -> Value {
    match parse(text) {
        Ok(Parsed::One(value)) => value,
        other => panic!("{text}: {other:?}"),
    }
}

fn sweep(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(Parsed::Sweep(items)) => items.into_iter().map(|item| item.text).collect(),
        other => panic!("{text}: {other:?}"),
    }
}

fn text(s: &str) -> Kind {
    Kind::Str(s.into())
}

#[test]
fn scalars() {
    for (typed, wanted) in [
        ("1", Kind::Int(1)),
        ("-1", Kind::Int(-1)),
        ("+5", Kind::Int(5)),
        ("0", Kind::Int(0)),
        ("1_000", Kind::Int(1000)),
        ("18446744073709551615", Kind::Int(u64::MAX.into())),
        ("007", text("007")),
        ("1__0", text("1__0")),
        ("_1", text("_1")),
        ("0x10", text("0x10")),
        ("1e-4", Kind::Float(1e-4)),
        ("1.5E3", Kind::Float(1500.0)),
        (".5", Kind::Float(0.5)),
        ("1.", Kind::Float(1.0)),
        ("-2.5", Kind::Float(-2.5)),
        ("inf", Kind::Float(f64::INFINITY)),
        ("-INF", Kind::Float(f64::NEG_INFINITY)),
        ("1.2.3", text("1.2.3")),
        ("1e", text("1e")),
        (".", text(".")),
        ("e5", text("e5")),
        ("true", Kind::Bool(true)),
        ("FALSE", Kind::Bool(false)),
        ("Null", Kind::Null),
        ("yes", text("yes")),
        ("on", text("on")),
        ("~", text("~")),
        ("", text("")),
        ("  ", text("")),
        ("'1'", text("1")),
        ("\"true\"", text("true")),
        ("'it\\'s'", text("it's")),
        ("'a\\\\'", text("a\\")),
        ("\"1,2\"", text("1,2")),
        ("a b  c ", text("a b  c")),
        ("/data/x-y.z+@%*?|:&#;$!<>^", text("/data/x-y.z+@%*?|:&#;$!<>^")),
        ("k=v", text("k=v")),
        ("epoch=9.pt", text("epoch=9.pt")),
        ("k\\=v", text("k=v")),
        ("a\\,b", text("a,b")),
        ("\\[x\\]", text("[x]")),
        ("C:\\temp", text("C:\\temp")),
        ("it's", text("it's")),
        ("${a.b}", text("${a.b}")),
        ("x_${oc.env:X,1}_y", text("x_${oc.env:X,1}_y")),
        ("日本 語", text("日本 語")),
    ] {
        assert_eq!(one(typed).kind, wanted, "{typed}");
    }
    assert!(matches!(one("NaN").kind, Kind::Float(x) if x.is_nan()));
}

#[test]
fn lists_and_maps() {
    assert_eq!(one("[1, a b, [x], {k: 'v'}, '']").to_string(), "[1, a b, [x], {k: v}, '']");
    assert_eq!(one("[]").kind, Kind::List(vec![]));
    assert_eq!(one("{}").kind, Kind::Map(vec![]));
    assert_eq!(one("{a: 1, 'b c': c:d, e: {f: null}}").to_string(), "{a: 1, 'b c': c:d, e: {f: null}}");
    assert_eq!(one("{user: uid, item: sku, time: ts}").at("item").unwrap().as_str(), Some("sku"));
    assert_eq!(one("[a=b, c]").at("0").unwrap().as_str(), Some("a=b"));
}

#[test]
fn sweeps() {
    assert_eq!(sweep("1,2"), ["1", "2"]);
    assert_eq!(sweep("a b , 'c,d',[1,2]"), ["a b", "'c,d'", "[1,2]"]);
    assert_eq!(sweep("choice(a, b)"), ["a", "b"]);
    assert_eq!(sweep("choice(x)"), ["x"]);
    assert_eq!(sweep("range(3)"), ["0", "1", "2"]);
    assert_eq!(sweep("range(1,4)"), ["1", "2", "3"]);
    assert_eq!(sweep("range(5,1,-2)"), ["5", "3"]);
    // D7: three values, printed as a person writes them; Hydra gives four, one of them 0.30000000000000004.
    assert_eq!(sweep("range(0.1,0.4,0.1)"), ["0.1", "0.2", "0.3"]);
    assert_eq!(sweep("range(0,1,0.25)"), ["0.0", "0.25", "0.5", "0.75"]);
    assert_eq!(sweep("range(1e-3,4e-3,1e-3)"), ["0.001", "0.002", "0.003"]);
    assert_eq!(parse("glob(*)"), Ok(Parsed::Glob("*".into())));
    assert_eq!(parse("glob('movielens-*')"), Ok(Parsed::Glob("movielens-*".into())));
}

#[test]
fn what_makes_no_sense_is_refused_with_its_column() {
    for (typed, column, wanted) in [
        ("'abc", 0, "the quote ' is not closed"),
        ("\"a\"b", 3, "`b` cannot stand here"),
        ("[1,2", 0, "`[` is not closed"),
        ("x [1]", 2, "`[` cannot stand in text without quotes"),
        ("{a 1}", 4, "expected `key: value` in `{…}`"),
        ("{a: 1, a: 2}", 7, "the key `a` is given twice"),
        ("[1,,2]", 3, "a value is missing here"),
        ("1,,2", 4, "a value is missing beside a comma"),
        ("f(x)", 0, "there is no function `f`"),
        ("sort(1,2)", 0, "the sweep function `sort()` is not offered here"),
        ("interval(0,1)", 0, "the sweep function `interval()` is not offered here"),
        ("int(3)", 0, "the cast `int()` is not offered here"),
        ("choice(1,2", 6, "`(` is not closed"),
        ("choice()", 0, "choice() needs at least one value"),
        ("range(0,1,0)", 0, "the step of range() is 0"),
        ("range(1,0)", 0, "range() is empty"),
        ("range(a)", 0, "range() takes numbers, got `a`"),
        ("${a", 0, "`${` is not closed"),
        ("glob(a,b)", 0, "glob() takes one pattern"),
    ] {
        let error = parse(typed).expect_err(typed);
        assert_eq!((error.column, error.message.as_str()), (column, wanted), "{typed}");
    }
}

fn scalar_values() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Kind::Null),
        any::<bool>().prop_map(Kind::Bool),
        any::<i64>().prop_map(|n| Kind::Int(n.into())),
        any::<u64>().prop_map(|n| Kind::Int(n.into())),
        (prop::num::f64::ANY).prop_filter("nan is not equal to itself", |x| !x.is_nan()).prop_map(Kind::Float),
        "\\PC*".prop_map(Kind::Str),
        // Text made of the marks and words that mean something.
        prop::collection::vec(
            prop::sample::select(vec![
                "'", "\"", "\\", ",", "=", "(", ")", "[", "]", "{", "}", ":", " ", "$", "${", "1", "_", ".", "e", "-",
                "true", "null", "nan", "choice(", "a", "\n"
            ]),
            0..8
        )
        .prop_map(|parts| Kind::Str(parts.concat())),
    ]
    .prop_map(Value::from)
}

fn values() -> impl Strategy<Value = Value> {
    scalar_values().prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| Kind::List(items).into()),
            prop::collection::btree_map("\\PC{1,5}", inner, 0..4)
                .prop_map(|map| Kind::Map(map.into_iter().collect()).into()),
        ]
    })
}

proptest! {
    #[test]
    fn a_printed_scalar_lexes_back(value in scalar_values()) {
        prop_assert_eq!(parse(&value.to_string()), Ok(Parsed::One(value)));
    }

    #[test]
    fn a_printed_value_lexes_back(value in values()) {
        prop_assert_eq!(parse(&value.to_string()), Ok(Parsed::One(value)));
    }

    #[test]
    fn nothing_panics(text in "\\PC*") {
        let _ = parse(&text);
        let _ = super::overrides::parse(&text, 1);
    }

    #[test]
    fn marks_do_not_panic(text in "[\\[\\]{}(),:='\"\\\\ $a1.~+@/]{0,20}") {
        let _ = parse(&text);
        let _ = super::overrides::parse(&text, 1);
    }
}
