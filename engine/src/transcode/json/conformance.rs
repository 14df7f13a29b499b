//! Cases of the JSON part of Protocol Buffers' conformance suite (`binary_json_conformance_suite.cc`,
//! BSD-3-Clause), in a table of our own, against a message with the fields that they use.

use prost_reflect::{DescriptorPool, DynamicMessage};

use super::super::schema::Schema;
use super::{Printing, Reading};

const TYPES: &str = include_str!("conformance.proto");

pub fn pool() -> DescriptorPool {
    let file = protox::file::File::from_source("t.proto", TYPES).unwrap();
    struct One(protox::file::File);
    impl protox::file::FileResolver for One {
        fn open_file(&self, name: &str) -> Result<protox::file::File, protox::Error> {
            match name {
                "t.proto" => {
                    let proto = self.0.file_descriptor_proto().clone();
                    Ok(protox::file::File::from_file_descriptor_proto(proto))
                }
                _ => Err(protox::Error::file_not_found(name)),
            }
        }
    }
    let mut resolver = protox::file::ChainFileResolver::new();
    resolver.add(One(file));
    resolver.add(protox::file::GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file("t.proto").unwrap();
    compiler.descriptor_pool()
}

struct Known {
    pool: DescriptorPool,
    schema: Schema,
}

impl Known {
    fn new() -> Known {
        let pool = pool();
        let schema = Schema::of(&pool).unwrap();
        Known { pool, schema }
    }

    fn read(&self, text: &str) -> Result<Vec<u8>, String> {
        let reading = Reading { schema: &self.schema, ignore_unknown: false, any_case: false };
        let mut out = Vec::new();
        let index = self.schema.find("t.All").unwrap();
        reading
            .message(text.as_bytes(), index, &mut out)
            .map_err(|fault| fault.problem.to_string())?;
        Ok(out)
    }

    fn print(&self, bytes: &[u8]) -> Result<String, String> {
        let printing = Printing {
            schema: &self.schema,
            always: false,
            enum_numbers: false,
            proto_names: false,
            pretty: false,
        };
        let mut out = Vec::new();
        let index = self.schema.find("t.All").unwrap();
        printing.message(bytes, index, &mut out).map_err(|bad| bad.0.to_string())?;
        Ok(String::from_utf8(out).unwrap())
    }

    /// JSON that means the same as `text` in `expected` form.
    fn means(&self, text: &str, expected: &str) {
        let bytes = self.read(text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
        let printed = self.print(&bytes).unwrap_or_else(|problem| panic!("{text}: {problem}"));
        assert_eq!(printed, expected, "{text}");
        // And the bytes are those that others understand.
        let message = self.pool.get_message_by_name("t.All").unwrap();
        let message = DynamicMessage::decode(message, &*bytes).unwrap();
        // By way of a text: a value has no floats of 32 bits.
        let theirs = serde_json::to_string(&message).ok();
        if let Some(theirs) = theirs.and_then(|text| serde_json::from_str(&text).ok()) {
            let ours: serde_json::Value = serde_json::from_str(&printed).unwrap();
            assert_eq!(ours, canonical(theirs), "{text}");
        }
    }
}

/// Whole numbers have no fraction here.
fn canonical(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15 => {
                (float as i64).into()
            }
            _ => Value::Number(number),
        },
        Value::Array(items) => items.into_iter().map(canonical).collect(),
        Value::Object(members) => {
            members.into_iter().map(|(name, value)| (name, canonical(value))).collect()
        }
        other => other,
    }
}

#[test]
fn what_the_suite_reads_is_read() {
    let known = Known::new();
    for (text, expected) in [
        ("{}", "{}"),
        // Field names.
        (
            r#"{"fieldname1":1,"fieldName2":2,"FieldName3":3,"fieldName4":4}"#,
            r#"{"fieldname1":1,"fieldName2":2,"FieldName3":3,"fieldName4":4}"#,
        ),
        (r#"{"field0name5":5,"field0Name6":6}"#, r#"{"field0name5":5,"field0Name6":6}"#),
        (
            r#"{"fieldName7":7,"FieldName8":8,"fieldName9":9,"FieldName10":10,"FIELDNAME11":11,"FIELDName12":12,"FieldName13":13}"#,
            r#"{"fieldName7":7,"FieldName8":8,"fieldName9":9,"FieldName10":10,"FIELDNAME11":11,"FIELDName12":12,"FieldName13":13}"#,
        ),
        (
            r#"{"field_name2":2,"_field_name3":3,"field__name4_":4,"field_0_name6":6,"field_Name9":9,"FIELD_NAME11":11,"__field_name13":13}"#,
            r#"{"fieldName2":2,"FieldName3":3,"fieldName4":4,"field0Name6":6,"fieldName9":9,"FIELDNAME11":11,"FieldName13":13}"#,
        ),
        (r#"{"fieldn\u0061me1": 1}"#, r#"{"fieldname1":1}"#),
        (
            "{\n\"optionalInt32\"\n:\n1\n,\n\"optionalInt64\"\n:\n2\n}",
            r#"{"optionalInt32":1,"optionalInt64":"2"}"#,
        ),
        // Integers.
        (r#"{"optionalInt32":2147483647}"#, r#"{"optionalInt32":2147483647}"#),
        (r#"{"optionalInt32":-2147483648}"#, r#"{"optionalInt32":-2147483648}"#),
        (r#"{"optionalUint32":4294967295}"#, r#"{"optionalUint32":4294967295}"#),
        (
            r#"{"optionalInt64":"9223372036854775807"}"#,
            r#"{"optionalInt64":"9223372036854775807"}"#,
        ),
        (
            r#"{"optionalInt64":"-9223372036854775808"}"#,
            r#"{"optionalInt64":"-9223372036854775808"}"#,
        ),
        (
            r#"{"optionalUint64":"18446744073709551615"}"#,
            r#"{"optionalUint64":"18446744073709551615"}"#,
        ),
        (r#"{"optionalInt64":9223372036854774784}"#, r#"{"optionalInt64":"9223372036854774784"}"#),
        (
            r#"{"optionalInt64":-9223372036854775808}"#,
            r#"{"optionalInt64":"-9223372036854775808"}"#,
        ),
        (
            r#"{"optionalUint64":18446744073709549568}"#,
            r#"{"optionalUint64":"18446744073709549568"}"#,
        ),
        (r#"{"optionalInt32":"2147483647"}"#, r#"{"optionalInt32":2147483647}"#),
        (r#"{"optionalInt32":"2\u003147483647"}"#, r#"{"optionalInt32":2147483647}"#),
        (r#"{"optionalInt32":100000.000}"#, r#"{"optionalInt32":100000}"#),
        (r#"{"optionalInt32":1e5}"#, r#"{"optionalInt32":100000}"#),
        (r#"{"optionalInt32":2.147483647e9}"#, r#"{"optionalInt32":2147483647}"#),
        (r#"{"optionalInt32":-2.147483648e9}"#, r#"{"optionalInt32":-2147483648}"#),
        (r#"{"optionalUint32":4.294967295e9}"#, r#"{"optionalUint32":4294967295}"#),
        (
            r#"{"optionalSint32":-1,"optionalSint64":"-2","optionalFixed32":3,"optionalFixed64":4,"optionalSfixed32":-5,"optionalSfixed64":-6}"#,
            r#"{"optionalSint32":-1,"optionalSint64":"-2","optionalFixed32":3,"optionalFixed64":"4","optionalSfixed32":-5,"optionalSfixed64":"-6"}"#,
        ),
        // Others.
        (r#"{"optionalBool":true}"#, r#"{"optionalBool":true}"#),
        (r#"{"optionalBool":false}"#, "{}"),
        (r#"{"optionalFloat":1.175494e-38}"#, r#"{"optionalFloat":1.175494e-38}"#),
        (r#"{"optionalFloat":3.402823e+38}"#, r#"{"optionalFloat":3.402823e+38}"#),
        (r#"{"optionalFloat":"1"}"#, r#"{"optionalFloat":1}"#),
        (r#"{"optionalFloat":"NaN"}"#, r#"{"optionalFloat":"NaN"}"#),
        (r#"{"optionalFloat":"-Infinity"}"#, r#"{"optionalFloat":"-Infinity"}"#),
        (r#"{"optionalDouble":2.22507e-308}"#, r#"{"optionalDouble":2.22507e-308}"#),
        (r#"{"optionalDouble":-1.79769e+308}"#, r#"{"optionalDouble":-1.79769e+308}"#),
        (r#"{"optionalDouble":"1"}"#, r#"{"optionalDouble":1}"#),
        (r#"{"optionalDouble":"Infinity"}"#, r#"{"optionalDouble":"Infinity"}"#),
        (r#"{"optionalNestedEnum":"BAR"}"#, r#"{"optionalNestedEnum":"BAR"}"#),
        (r#"{"optionalNestedEnum":1}"#, r#"{"optionalNestedEnum":"BAR"}"#),
        (r#"{"optionalNestedEnum":-1}"#, r#"{"optionalNestedEnum":"NEG"}"#),
        (r#"{"optionalNestedEnum":123}"#, r#"{"optionalNestedEnum":123}"#),
        (r#"{"optionalAliasedEnum":"MOO"}"#, r#"{"optionalAliasedEnum":"ALIAS_BAZ"}"#),
        (r#"{"optionalAliasedEnum":"moo"}"#, r#"{"optionalAliasedEnum":"ALIAS_BAZ"}"#),
        (r#"{"optionalString":"谷歌"}"#, r#"{"optionalString":"谷歌"}"#),
        (
            r#"{"optionalString":"\u8C37\u6b4c \"\\\/\b\f\n\r\t"}"#,
            "{\"optionalString\":\"谷歌 \\\"\\\\/\\u0008\\u000c\\n\\r\\t\"}",
        ),
        (r#"{"optionalString":"\uD83D\uDE01"}"#, r#"{"optionalString":"😁"}"#),
        (r#"{"optionalBytes":"AQI="}"#, r#"{"optionalBytes":"AQI="}"#),
        (r#"{"optionalBytes":"-_"}"#, r#"{"optionalBytes":"+w=="}"#),
        (r#"{"optionalNestedMessage":{"a":1234}}"#, r#"{"optionalNestedMessage":{"a":1234}}"#),
        (r#"{"explicit":0}"#, r#"{"explicit":0}"#),
        // Oneofs.
        (r#"{"oneofUint32":0}"#, r#"{"oneofUint32":0}"#),
        (r#"{"oneofNestedMessage":{}}"#, r#"{"oneofNestedMessage":{}}"#),
        (r#"{"oneofString":""}"#, r#"{"oneofString":""}"#),
        (r#"{"oneofBytes":""}"#, r#"{"oneofBytes":""}"#),
        (r#"{"oneofBool":false}"#, r#"{"oneofBool":false}"#),
        (r#"{"oneofUint64":0}"#, r#"{"oneofUint64":"0"}"#),
        (r#"{"oneofFloat":0.0}"#, r#"{"oneofFloat":0}"#),
        (r#"{"oneofEnum":"FOO"}"#, r#"{"oneofEnum":"FOO"}"#),
        (r#"{"oneofNull":null}"#, r#"{"oneofNull":null}"#),
        (r#"{"oneofUint32":null,"oneofString":"x"}"#, r#"{"oneofString":"x"}"#),
        // Maps.
        (r#"{"mapInt32Int32":{"1":2,"3":4}}"#, r#"{"mapInt32Int32":{"1":2,"3":4}}"#),
        (r#"{"mapInt64Int64":{"\u0031":2}}"#, r#"{"mapInt64Int64":{"1":"2"}}"#),
        (
            r#"{"mapUint64Uint64":{"18446744073709551615":0}}"#,
            r#"{"mapUint64Uint64":{"18446744073709551615":"0"}}"#,
        ),
        (
            r#"{"mapBoolBool":{"tr\u0075e":true,"false":false}}"#,
            r#"{"mapBoolBool":{"true":true,"false":false}}"#,
        ),
        (
            r#"{"mapStringNested":{"hello":{"a":1},"":{}}}"#,
            r#"{"mapStringNested":{"hello":{"a":1},"":{}}}"#,
        ),
        // Lists.
        (r#"{"repeatedInt32":[1,2,3,4]}"#, r#"{"repeatedInt32":[1,2,3,4]}"#),
        (r#"{"repeatedInt32":[]}"#, "{}"),
        (
            r#"{"repeatedNestedEnum":["FOO","BAR","BAZ"]}"#,
            r#"{"repeatedNestedEnum":["FOO","BAR","BAZ"]}"#,
        ),
        (
            r#"{"repeatedString":["Hello","world",""]}"#,
            r#"{"repeatedString":["Hello","world",""]}"#,
        ),
        (r#"{"repeatedBytes":["AAEC","AQI="]}"#, r#"{"repeatedBytes":["AAEC","AQI="]}"#),
        (
            r#"{"repeatedNestedMessage":[{"a":1234},{}]}"#,
            r#"{"repeatedNestedMessage":[{"a":1234},{}]}"#,
        ),
        (r#"{"unpackedDouble":[0,1.5]}"#, r#"{"unpackedDouble":[0,1.5]}"#),
        // Nulls.
        (
            r#"{"optionalInt32":null,"optionalBool":null,"optionalBytes":null,"optionalNestedEnum":null,"optionalNestedMessage":null,"repeatedInt32":null,"mapBoolBool":null,"optionalDuration":null,"optionalBoolWrapper":null,"repeatedInt32Wrapper":null,"optionalStruct":null,"optionalAny":null}"#,
            "{}",
        ),
        // Wrappers.
        (r#"{"optionalBoolWrapper":false}"#, r#"{"optionalBoolWrapper":false}"#),
        (r#"{"optionalInt32Wrapper":0}"#, r#"{"optionalInt32Wrapper":0}"#),
        (r#"{"optionalInt64Wrapper":"1"}"#, r#"{"optionalInt64Wrapper":"1"}"#),
        (r#"{"optionalStringWrapper":""}"#, r#"{"optionalStringWrapper":""}"#),
        (r#"{"optionalBytesWrapper":"AQI="}"#, r#"{"optionalBytesWrapper":"AQI="}"#),
        (r#"{"repeatedInt32Wrapper":[0,1]}"#, r#"{"repeatedInt32Wrapper":[0,1]}"#),
        // Times.
        (
            r#"{"optionalDuration":"-315576000000.999999999s"}"#,
            r#"{"optionalDuration":"-315576000000.999999999s"}"#,
        ),
        (
            r#"{"repeatedDuration":["1.5s","-1.5s"]}"#,
            r#"{"repeatedDuration":["1.500s","-1.500s"]}"#,
        ),
        (r#"{"optionalDuration":"1.000010000s"}"#, r#"{"optionalDuration":"1.000010s"}"#),
        (
            r#"{"optionalTimestamp":"0001-01-01T00:00:00Z"}"#,
            r#"{"optionalTimestamp":"0001-01-01T00:00:00Z"}"#,
        ),
        (
            r#"{"optionalTimestamp":"9999-12-31T23:59:59.999999999Z"}"#,
            r#"{"optionalTimestamp":"9999-12-31T23:59:59.999999999Z"}"#,
        ),
        (
            r#"{"optionalTimestamp":"1970-01-01T08:00:01+08:00"}"#,
            r#"{"optionalTimestamp":"1970-01-01T00:00:01Z"}"#,
        ),
        (
            r#"{"optionalTimestamp":"1969-12-31T16:00:00-08:00"}"#,
            r#"{"optionalTimestamp":"1970-01-01T00:00:00Z"}"#,
        ),
        // Masks, structures, values.
        (r#"{"optionalFieldMask":"foo,barBaz"}"#, r#"{"optionalFieldMask":"foo,barBaz"}"#),
        (r#"{"optionalFieldMask":""}"#, r#"{"optionalFieldMask":""}"#),
        (
            r#"{"optionalStruct":{"nullValue":null,"intValue":1234,"boolValue":true,"doubleValue":1234.5678,"stringValue":"Hello world!","listValue":[1234,"5678"],"objectValue":{"value":0}}}"#,
            r#"{"optionalStruct":{"nullValue":null,"intValue":1234,"boolValue":true,"doubleValue":1234.5678,"stringValue":"Hello world!","listValue":[1234,"5678"],"objectValue":{"value":0}}}"#,
        ),
        (r#"{"optionalStruct":{"listValue":[]}}"#, r#"{"optionalStruct":{"listValue":[]}}"#),
        (r#"{"optionalValue":1}"#, r#"{"optionalValue":1}"#),
        (r#"{"optionalValue":1.5}"#, r#"{"optionalValue":1.5}"#),
        (r#"{"optionalValue":false}"#, r#"{"optionalValue":false}"#),
        (r#"{"optionalValue":null}"#, r#"{"optionalValue":null}"#),
        (r#"{"optionalValue":"hello"}"#, r#"{"optionalValue":"hello"}"#),
        (r#"{"optionalValue":[0,"hello"]}"#, r#"{"optionalValue":[0,"hello"]}"#),
        (r#"{"optionalValue":{"value":1}}"#, r#"{"optionalValue":{"value":1}}"#),
        (r#"{"repeatedValue":[["a"],null]}"#, r#"{"repeatedValue":[["a"],null]}"#),
        (r#"{"repeatedListValue":[["a"]]}"#, r#"{"repeatedListValue":[["a"]]}"#),
        // Any.
        (
            r#"{"optionalAny":{"@type":"type.googleapis.com/t.All","optionalInt32":12345}}"#,
            r#"{"optionalAny":{"@type":"type.googleapis.com/t.All","optionalInt32":12345}}"#,
        ),
        (
            r#"{"optionalAny":{"@type":"type.googleapis.com/google.protobuf.Any","value":{"@type":"type.googleapis.com/t.All","optionalInt32":12345}}}"#,
            r#"{"optionalAny":{"@type":"type.googleapis.com/google.protobuf.Any","value":{"@type":"type.googleapis.com/t.All","optionalInt32":12345}}}"#,
        ),
        (
            r#"{"optionalAny":{"optionalInt32":12345,"@type":"type.googleapis.com/t.All"}}"#,
            r#"{"optionalAny":{"@type":"type.googleapis.com/t.All","optionalInt32":12345}}"#,
        ),
        (
            r#"{"optionalAny":{"@type":"type.googleapis.com/google.protobuf.Int32Value","value":12345}}"#,
            r#"{"optionalAny":{"@type":"type.googleapis.com/google.protobuf.Int32Value","value":12345}}"#,
        ),
        (
            r#"{"optionalAny":{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1.5s"}}"#,
            r#"{"optionalAny":{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1.500s"}}"#,
        ),
        (
            r#"{"optionalAny":{"@type":"type.googleapis.com/google.protobuf.Timestamp","value":"1970-01-01T00:00:00Z"}}"#,
            r#"{"optionalAny":{"@type":"type.googleapis.com/google.protobuf.Timestamp","value":"1970-01-01T00:00:00Z"}}"#,
        ),
        (
            r#"{"optionalAny":{"@type":"type.googleapis.com/google.protobuf.FieldMask","value":"foo,barBaz"}}"#,
            r#"{"optionalAny":{"@type":"type.googleapis.com/google.protobuf.FieldMask","value":"foo,barBaz"}}"#,
        ),
        (
            r#"{"optionalAny":{"@type":"type.googleapis.com/google.protobuf.Struct","value":{"foo":1}}}"#,
            r#"{"optionalAny":{"@type":"type.googleapis.com/google.protobuf.Struct","value":{"foo":1}}}"#,
        ),
        (
            r#"{"optionalAny":{"@type":"type.googleapis.com/google.protobuf.Value","value":{"foo":1}}}"#,
            r#"{"optionalAny":{"@type":"type.googleapis.com/google.protobuf.Value","value":{"foo":1}}}"#,
        ),
        (
            r#"{"optionalAny":{"@type":"type.googleapis.com/google.protobuf.Value","value":1}}"#,
            r#"{"optionalAny":{"@type":"type.googleapis.com/google.protobuf.Value","value":1}}"#,
        ),
        (r#"{"optionalAny":{}}"#, r#"{"optionalAny":{}}"#),
        // Ours: what is not known stays what it is.
        (
            r#"{"optionalAny":{"@type":"type.googleapis.com/no.Such","value":"AQI="}}"#,
            r#"{"optionalAny":{"@type":"type.googleapis.com/no.Such","value":"AQI="}}"#,
        ),
    ] {
        known.means(text, expected);
    }
}

#[test]
fn what_the_suite_refuses_is_refused() {
    let known = Known::new();
    for text in [
        "null",
        "[]",
        "1",
        "",
        "{",
        r#"{"optionalString": "abc\"#,
        "{fieldname1: 1}",
        r#"{"fieldname1":1,}"#,
        r#"{"fieldname1":1 ,}"#,
        r#"{"fieldname1":1 , }"#,
        "{\n// This is a comment.\n\"fieldname1\": 1\n}",
        r#"{ "optionalInt32": 1 "optionalInt64": 2 }"#,
        r#"{"optionalNestedMessage": {"a": 1}, "optionalNestedMessage": {}}"#,
        r#"{"optional_nested_message": {"a": 1}, "optionalNestedMessage": {}}"#,
        r#"{"optionalNestedMessage": {"a": 1}, "optional_nested_message": {}}"#,
        r#"{"optionalInt32": 2147483648}"#,
        r#"{"optionalInt32": -2147483649}"#,
        r#"{"optionalUint32": 4294967296}"#,
        r#"{"optionalUint32": -1}"#,
        r#"{"optionalInt64": "9223372036854775808"}"#,
        r#"{"optionalInt64": "-9223372036854775809"}"#,
        r#"{"optionalUint64": "18446744073709551616"}"#,
        r#"{"optionalInt32": 0.5}"#,
        r#"{"optionalUint32": 0.5}"#,
        r#"{"optionalInt64": "0.5"}"#,
        r#"{"optionalUint64": "0.5"}"#,
        r#"{"optionalInt32": "3x3"}"#,
        r#"{"optionalInt64": "3x3"}"#,
        r#"{"optionalInt32": +1}"#,
        r#"{"optionalInt32": 01}"#,
        r#"{"optionalInt32": -01}"#,
        r#"{"optionalInt32": " 1"}"#,
        r#"{"optionalInt32": "1 "}"#,
        r#"{"optionalInt32": ""}"#,
        r#"{"optionalInt32": true}"#,
        r#"{"optionalBool":0}"#,
        r#"{"optionalBool":1}"#,
        r#"{"optionalBool":True}"#,
        r#"{"optionalBool":FALSE}"#,
        r#"{"optionalBool":"true"}"#,
        r#"{"optionalBool":"false"}"#,
        r#"{"optionalFloat": NaN}"#,
        r#"{"optionalFloat": Infinity}"#,
        r#"{"optionalFloat": -Infinity}"#,
        r#"{"optionalFloat": -3.502823e+38}"#,
        r#"{"optionalFloat": 3.502823e+38}"#,
        r#"{"optionalDouble": NaN}"#,
        r#"{"optionalDouble": -1.89769e+308}"#,
        r#"{"optionalDouble": +1.89769e+308}"#,
        r#"{"optionalDouble": 1.89769e+308}"#,
        r#"{"optionalNestedEnum": FOO}"#,
        r#"{"optionalNestedEnum": "foo"}"#,
        r#"{"optionalNestedEnum": 1.5}"#,
        r#"{"optionalString": "\U8C37\U6b4C"}"#,
        r#"{"optionalString": "\uZZZZ\u6B4C"}"#,
        r#"{"optionalString": "\u8C3"}"#,
        r#"{"optionalString": "\uD800"}"#,
        r#"{"optionalString": "\uDC00"}"#,
        r#"{"optionalString": "\uDE01\uD83D"}"#,
        r#"{"optionalString": 12345}"#,
        r#"{"optionalBytes": "!"}"#,
        r#"{"oneofUint32": 1, "oneofString": "test"}"#,
        r#"{"mapInt32Int32": {1: 2, 3: 4}}"#,
        r#"{"mapInt32Int32": {"x": 2}}"#,
        r#"{"mapBoolBool": {true: true}}"#,
        r#"{"mapBoolBool": {"1": true}}"#,
        r#"{"mapInt32Int32": {null: 1}}"#,
        r#"{"mapInt32Int32": {"0": null}}"#,
        r#"{'optionalString': "Hello world!"}"#,
        r#"{"optionalString": 'Hello world!'}"#,
        r#"{"repeatedInt32": [1, false, 3, 4]}"#,
        r#"{"repeatedInt32": [1, 2, "name", 4]}"#,
        r#"{"repeatedInt32": [1, 2, 3, {"a": 4}]}"#,
        r#"{"repeatedString": ["1", 2, "3", "4"]}"#,
        r#"{"repeatedString": ["1", "2", false, "4"]}"#,
        r#"{"repeatedString": ["1", 2, "3", {"a": 4}]}"#,
        r#"{"repeatedNestedMessage": [{"a": 1}, 2]}"#,
        r#"{"repeatedNestedMessage": [{"a": 1}, false]}"#,
        r#"{"repeatedNestedMessage": [{"a": 1}, "2"]}"#,
        r#"{"repeatedInt32": [1, 2, 3, 4,]}"#,
        r#"{"repeatedInt32": [1, 2, 3, 4 , ]}"#,
        r#"{"repeatedInt32": [1, null, 2]}"#,
        r#"{"repeatedInt32": 1}"#,
        r#"{"repeatedNestedMessage": [{"a":1}, null, {"a":2}]}"#,
        r#"{"optionalDuration": "1"}"#,
        r#"{"optionalDuration": "-315576000001.000000000s"}"#,
        r#"{"optionalDuration": "315576000001.000000000s"}"#,
        r#"{"optionalDuration": {"seconds": 1}}"#,
        r#"{"optionalTimestamp": "0000-01-01T00:00:00Z"}"#,
        r#"{"optionalTimestamp": "10000-01-01T00:00:00Z"}"#,
        r#"{"optionalTimestamp": "0001-01-01T00:00:00"}"#,
        r#"{"optionalTimestamp": "0001-01-01 00:00:00Z"}"#,
        r#"{"optionalTimestamp": "0001-01-01T00:00:00z"}"#,
        r#"{"optionalTimestamp": "0001-01-01t00:00:00Z"}"#,
        r#"{"optionalFieldMask": "foo,bar_bar"}"#,
        r#"{"optionalAny": {"optionalInt32": 1}}"#,
        r#"{"optionalAny": {"@type": "t.All", "optionalInt32": 1}}"#,
        r#"{"optionalAny": {"@type": "type.googleapis.com/no.Such", "a": 1}}"#,
        r#"{"optionalAny": {"@type": "type.googleapis.com/google.protobuf.Duration"}}"#,
        r#"{"optionalAny": {"@type": 1}}"#,
        r#"{"unknown": 1}"#,
        r#"{} {}"#,
    ] {
        assert!(known.read(text).is_err(), "{text}");
    }
}

#[test]
fn what_is_not_known_is_passed_over_where_that_is_asked_for() {
    let known = Known::new();
    let reading = Reading { schema: &known.schema, ignore_unknown: true, any_case: true };
    let index = known.schema.find("t.All").unwrap();
    for (text, expected) in [
        (r#"{"unknown": 1}"#, "{}"),
        (r#"{"unknown": "a"}"#, "{}"),
        (r#"{"unknown": true}"#, "{}"),
        (r#"{"unknown": null}"#, "{}"),
        (r#"{"unknown": {"a": 1}, "optionalInt32": 1}"#, r#"{"optionalInt32":1}"#),
        (r#"{"optionalNestedEnum": "NO"}"#, "{}"),
        (
            r#"{"repeatedNestedEnum": ["BAR", "NO", "BAZ"]}"#,
            r#"{"repeatedNestedEnum":["BAR","BAZ"]}"#,
        ),
        (r#"{"mapStringEnum": {"a": "NO", "b": "BAR"}}"#, r#"{"mapStringEnum":{"b":"BAR"}}"#),
        (r#"{"optionalNestedEnum": "bar"}"#, r#"{"optionalNestedEnum":"BAR"}"#),
        (r#"{"optionalAliasedEnum": "aLiAs_BaR"}"#, r#"{"optionalAliasedEnum":"ALIAS_BAR"}"#),
    ] {
        let mut out = Vec::new();
        reading.message(text.as_bytes(), index, &mut out).unwrap();
        assert_eq!(known.print(&out).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn what_has_no_json_is_not_printed() {
    let known = Known::new();
    let timestamp = |seconds: i64| {
        let mut inner = vec![0x08];
        super::super::wire::write_varint(&mut inner, seconds as u64);
        let mut out = Vec::new();
        super::super::wire::write_bytes(&mut out, 302, &inner);
        out
    };
    let mask = |path: &str| {
        let mut inner = Vec::new();
        super::super::wire::write_bytes(&mut inner, 1, path.as_bytes());
        let mut out = Vec::new();
        super::super::wire::write_bytes(&mut out, 303, &inner);
        out
    };
    for bytes in [
        timestamp(-62_135_596_801),
        timestamp(253_402_300_800),
        mask("fooBar"),
        mask("foo_3_bar"),
        mask("foo__bar"),
        vec![0x72, 0x01, 0xff],
        vec![0x72, 0x05],
        vec![0xff],
    ] {
        assert!(known.print(&bytes).is_err(), "{bytes:?}");
    }
    // NaNs of any kind are one.
    let nan = [&[0x5d][..], &0x7fa1_2345_u32.to_le_bytes()].concat();
    assert_eq!(known.print(&nan).as_deref(), Ok(r#"{"optionalFloat":"NaN"}"#));
    // Fields that are not known are not told; of a oneof the last counts, of a scalar, too.
    let bytes =
        [&[0xf8, 0xff, 0x01, 0x05][..], &[0xf8, 0x06, 1, 0x8a, 0x07, 1, b'x'], &[8, 1, 8, 2]];
    assert_eq!(
        known.print(&bytes.concat()).as_deref(),
        Ok(r#"{"optionalInt32":2,"oneofString":"x"}"#)
    );
    // Messages that are there twice are one.
    let bytes = [0x92, 1, 2, 8, 7, 0x92, 1, 4, 0x12, 2, 8, 5];
    assert_eq!(
        known.print(&bytes).as_deref(),
        Ok(r#"{"optionalNestedMessage":{"a":7,"corecursive":{"optionalInt32":5}}}"#)
    );
    // Packed where that is not declared, and the other way round.
    let bytes = [0xf8, 1, 1, 0xf8, 1, 2];
    assert_eq!(known.print(&bytes).as_deref(), Ok(r#"{"repeatedInt32":[1,2]}"#));
}

#[test]
fn faults_say_where_and_never_what() {
    let known = Known::new();
    let reading = Reading { schema: &known.schema, ignore_unknown: false, any_case: false };
    let index = known.schema.find("t.All").unwrap();
    for (text, pointer) in [
        (r#"{"repeatedNestedMessage":[{},{"a":"secret"}]}"#, "/repeatedNestedMessage/1/a"),
        (r#"{"mapStringNested":{"a/b":{"a":"secret"}}}"#, "/mapStringNested/a~1b/a"),
        (r#"{"optionalNestedMessage":{"secret":1}}"#, "/optionalNestedMessage/secret"),
        (r#"{"optionalTimestamp":"secret"}"#, "/optionalTimestamp"),
    ] {
        let fault = reading.message(text.as_bytes(), index, &mut Vec::new()).unwrap_err();
        assert_eq!(fault.pointer, pointer);
        assert!(!fault.problem.contains("secret"), "{fault:?}");
    }
    let deep = format!("{}{}", r#"{"optionalNestedMessage":{"corecursive":"#.repeat(200), "1");
    assert!(reading.message(deep.as_bytes(), index, &mut Vec::new()).is_err());
}

#[test]
fn options_of_printing_change_what_is_told() {
    let known = Known::new();
    let bytes =
        known.read(r#"{"optionalNestedEnum":"BAR","optionalNestedMessage":{"a":1}}"#).unwrap();
    let plain = Printing {
        schema: &known.schema,
        always: false,
        enum_numbers: true,
        proto_names: true,
        pretty: true,
    };
    let index = known.schema.find("t.All").unwrap();
    let mut out = Vec::new();
    plain.message(&bytes, index, &mut out).unwrap();
    let expected =
        "{\n  \"optional_nested_message\": {\n    \"a\": 1\n  },\n  \"optional_nested_enum\": 1\n}";
    assert_eq!(String::from_utf8_lossy(&out), expected);
    out.clear();
    let always = Printing { always: true, pretty: false, proto_names: false, ..plain };
    always.message(&bytes, index, &mut out).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((&value["optionalInt32"], &value["optionalInt64"]), (&0.into(), &"0".into()));
    assert_eq!(value["repeatedInt32"], serde_json::json!([]));
    assert_eq!(value["mapInt32Int32"], serde_json::json!({}));
    assert_eq!(value["optionalNestedMessage"]["a"], 1);
    for absent in ["oneofUint32", "optionalDuration", "explicit"] {
        assert!(value.get(absent).is_none(), "{absent}");
    }
}
