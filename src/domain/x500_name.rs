//! Legal names: X.500 names as Corda restricts them, in text (as Java prints them) and in DER (as certificates hold them).
//!
//! The rules are those of Corda 4.10's `CordaX500Name`, found by running it, with these differences:
//! - Control characters are refused everywhere, not only in the organisation: names go into logs and terminals.
//! - A country is any two capital letters. Which codes exist is for the network's identity CA to say; a list of our own would
//!   one day cut off a party.
//! - An organisation need not be in Unicode form NFKC; only its white space is checked. No identity CA issues other names.
//! - An RDN holds one attribute; Corda flattens multi-valued ones.

use core::fmt;
use core::str::FromStr;

use der::asn1::{Any, AnyRef, Ia5StringRef, ObjectIdentifier, PrintableStringRef, SetOfVec, Utf8StringRef};
use der::{Decode, Encode, Sequence, Tag, Tagged, ValueOrd};

/// A legal name with Corda's attributes. Two names are equal if all attributes are.
///
/// The fields are open for reading and for literals in tests; names from outside come through [`Self::checked`],
/// [`Self::parse`] or [`Self::from_der`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct X500Name {
    /// CN.
    pub common_name: Option<String>,
    /// OU.
    pub organisation_unit: Option<String>,
    /// O, always present.
    pub organisation: String,
    /// L, always present.
    pub locality: String,
    /// ST.
    pub state: Option<String>,
    /// C, always present: two letters.
    pub country: String,
}

/// Why something is no legal name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// The text or the DER cannot be read.
    #[error("malformed X.500 name: {0}")]
    Malformed(&'static str),
    /// An attribute that Corda names do not have.
    #[error("X.500 attribute {0} is not supported in Corda")]
    Unsupported(String),
    /// An attribute occurs twice.
    #[error("duplicate X.500 attribute {0}")]
    Duplicate(&'static str),
    /// A mandatory attribute is absent.
    #[error("Corda X.500 names must include an {0} attribute")]
    Missing(&'static str),
    /// An attribute has a value that is not allowed.
    #[error("X.500 attribute {attribute} {why}")]
    Value {
        /// Its keyword.
        attribute: &'static str,
        /// What is wrong.
        why: &'static str,
    },
}

/// The attributes in the order in which Corda prints them, with the second bytes of their OIDs `2.5.4.n`.
const ATTRIBUTES: [(&str, u8); 6] = [("CN", 3), ("OU", 11), ("O", 10), ("L", 7), ("ST", 8), ("C", 6)];
/// Attribute values by position in [`ATTRIBUTES`].
type Values = [Option<String>; 6];

/// Lengths in UTF-16 units, as Java counts: Corda wants less than 128 for O, less than 64 for the others.
const ORGANISATION_LEN_MAX: usize = 127;
const VALUE_LEN_MAX: usize = 63;
/// Bytes of text or DER read. A name with every attribute at its limit, each byte of it escaped by two digits, has less.
const INPUT_LEN_MAX: usize = 4096;
/// Characters that make Java's printer quote a value.
const SPECIAL: &str = ",+=\n<>#;\\\"";

impl X500Name {
    /// A name with the mandatory attributes only.
    ///
    /// # Errors
    /// As [`Self::checked`].
    pub fn new(organisation: &str, locality: &str, country: &str) -> Result<Self, NameError> {
        let (organisation, locality, country) = (organisation.into(), locality.into(), country.into());
        Self { common_name: None, organisation_unit: None, organisation, locality, state: None, country }.checked()
    }

    /// The name itself, if it follows the rules.
    ///
    /// # Errors
    /// [`NameError::Value`] for an attribute that is too long, has a control character, or is not what Corda allows there.
    pub fn checked(self) -> Result<Self, NameError> {
        for ((attribute, _), value) in ATTRIBUTES.into_iter().zip(self.values()) {
            let Some(value) = value else { continue };
            let refuse = |why| Err(NameError::Value { attribute, why });
            let len_max = if attribute == "O" { ORGANISATION_LEN_MAX } else { VALUE_LEN_MAX };
            if value.encode_utf16().count() > len_max {
                return refuse("is too long");
            }
            if value.chars().any(char::is_control) {
                return refuse("has a control character");
            }
        }
        let refuse = |attribute, why| Err(NameError::Value { attribute, why });
        if !(self.country.len() == 2 && self.country.bytes().all(|byte| byte.is_ascii_uppercase())) {
            return refuse("C", "is not a country code of two capital letters");
        }
        let organisation = self.organisation.as_str();
        if organisation.chars().filter(|c| c.is_alphabetic()).count() < 2 {
            return refuse("O", "has fewer than two letters");
        }
        if organisation.chars().any(|c| c.is_whitespace() && c != ' ')
            || organisation.starts_with(' ')
            || organisation.ends_with(' ')
            || organisation.contains("  ")
        {
            return refuse("O", "has white space other than single spaces inside");
        }
        if organisation.starts_with('#') || organisation.contains(['"', '+', ',', ';', '<', '>', '\\']) {
            return refuse("O", "has a character that is not allowed in it");
        }
        Ok(self)
    }

    /// Reads text as Java's `X500Principal` does: attributes in any order, separated by commas or semicolons, values bare or
    /// quoted, with `\` before a special character or before the two hexadecimal digits of a UTF-8 byte.
    ///
    /// # Errors
    /// [`NameError`] if the text is malformed, or the name breaks a rule.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.len() > INPUT_LEN_MAX {
            return Err(NameError::Malformed("too long"));
        }
        let mut values = Values::default();
        let mut rest = text;
        loop {
            let (keyword, value) = rest.split_once('=').ok_or(NameError::Malformed("an attribute without ="))?;
            let keyword = keyword.trim_matches(' ').to_ascii_uppercase();
            // Java reads S for ST, too.
            let keyword = if keyword == "S" { "ST" } else { keyword.as_str() };
            let position = ATTRIBUTES.iter().position(|(known, _)| *known == keyword);
            let position = position.ok_or_else(|| NameError::Unsupported(keyword.to_owned()))?;
            let value = parse_value(value)?;
            insert(&mut values, position, value.text)?;
            match value.after {
                Some(after) => rest = after,
                None => return Self::from_values(values),
            }
        }
    }

    /// Reads an X.501 `Name`, such as a certificate's subject. Strings may be PrintableString, UTF8String or IA5String.
    ///
    /// # Errors
    /// [`NameError`] if the DER is malformed, or the name breaks a rule.
    pub fn from_der(der: &[u8]) -> Result<Self, NameError> {
        if der.len() > INPUT_LEN_MAX {
            return Err(NameError::Malformed("too long"));
        }
        let rdns =
            Vec::<SetOfVec<Attribute>>::from_der(der).map_err(|_| NameError::Malformed("not the DER of a name"))?;
        let mut values = Values::default();
        for rdn in &rdns {
            let [Attribute { oid, value }] = rdn.as_slice() else {
                return Err(NameError::Malformed("more than one attribute in an RDN"));
            };
            let position = ATTRIBUTES.iter().position(|(_, last)| oid.as_bytes() == [0x55, 0x04, *last]);
            let position = position.ok_or_else(|| NameError::Unsupported(oid.to_string()))?;
            insert(&mut values, position, string(value.into())?.to_owned())?;
        }
        Self::from_values(values)
    }

    /// The X.501 `Name` as Corda encodes it: country first and a PrintableString, the others UTF8Strings.
    ///
    /// # Panics
    /// Never: every value is a string of at most a few hundred bytes.
    pub fn to_der(&self) -> Vec<u8> {
        const SMALL: &str = "a short string encodes";
        let present =
            ATTRIBUTES.into_iter().zip(self.values()).rev().filter_map(|((_, last), value)| Some((last, value?)));
        let rdn = |(last, value): (u8, &str)| {
            let oid = ObjectIdentifier::from_bytes(&[0x55, 0x04, last]).expect("2.5.4.n");
            let tag = if last == 6 { Tag::PrintableString } else { Tag::Utf8String };
            let value = Any::new(tag, value.as_bytes()).expect(SMALL);
            SetOfVec::try_from([Attribute { oid, value }]).expect("one element")
        };
        present.map(rdn).collect::<Vec<_>>().to_der().expect(SMALL)
    }

    /// By position in [`ATTRIBUTES`].
    fn values(&self) -> [Option<&str>; 6] {
        let Self { common_name, organisation_unit, organisation, locality, state, country } = self;
        [
            common_name.as_deref(),
            organisation_unit.as_deref(),
            Some(organisation),
            Some(locality),
            state.as_deref(),
            Some(country),
        ]
    }

    fn from_values(values: Values) -> Result<Self, NameError> {
        let [common_name, organisation_unit, organisation, locality, state, country] = values;
        let organisation = organisation.ok_or(NameError::Missing("O"))?;
        let locality = locality.ok_or(NameError::Missing("L"))?;
        let country = country.ok_or(NameError::Missing("C"))?;
        Self { common_name, organisation_unit, organisation, locality, state, country }.checked()
    }
}

fn insert(values: &mut Values, position: usize, value: String) -> Result<(), NameError> {
    match values[position].replace(value) {
        None => Ok(()),
        Some(_) => Err(NameError::Duplicate(ATTRIBUTES[position].0)),
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Sequence, ValueOrd)]
struct Attribute {
    oid: ObjectIdentifier,
    value: Any,
}

fn string(value: AnyRef<'_>) -> Result<&str, NameError> {
    let bad = |_| NameError::Malformed("a string is not of its ASN.1 type");
    match value.tag() {
        Tag::PrintableString => value.decode_as::<PrintableStringRef<'_>>().map(|s| s.as_str()).map_err(bad),
        Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().map(|s| s.as_str()).map_err(bad),
        Tag::Ia5String => value.decode_as::<Ia5StringRef<'_>>().map(|s| s.as_str()).map_err(bad),
        _ => Err(NameError::Malformed("an attribute of an unsupported string type")),
    }
}

/// A value and what comes after its separator; `None` at the end of the text.
struct ParsedValue<'a> {
    text: String,
    after: Option<&'a str>,
}

fn parse_value(text: &str) -> Result<ParsedValue<'_>, NameError> {
    let text = text.trim_start_matches(' ');
    if text.starts_with('#') {
        return Err(NameError::Malformed("hexadecimal values are not supported"));
    }
    let quoted = text.starts_with('"');
    let mut value = Vec::new();
    // Spaces at the end of a bare value do not belong to it, unless they are escaped.
    let mut len_kept = 0;
    let mut chars = text.char_indices().skip(usize::from(quoted));
    let end = loop {
        match chars.next() {
            None if quoted => return Err(NameError::Malformed("a quote is not closed")),
            None => break text.len(),
            Some((i, '"')) if quoted => break i + 1,
            Some((i, ',' | ';' | '+')) if !quoted => break i,
            Some((_, '"' | '<' | '>')) if !quoted => {
                return Err(NameError::Malformed("a special character is not escaped"));
            }
            Some((_, '\\')) => {
                value.push(unescape(&mut chars)?);
                len_kept = value.len();
            }
            Some((_, c)) => {
                value.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                if quoted || c != ' ' {
                    len_kept = value.len();
                }
            }
        }
    };
    value.truncate(len_kept);
    let text_of_value = String::from_utf8(value).map_err(|_| NameError::Malformed("escaped bytes are not UTF-8"))?;
    let rest = text[end..].trim_start_matches(' ');
    let after = match rest.chars().next() {
        None => None,
        Some(',' | ';') => Some(&rest[1..]),
        Some('+') => return Err(NameError::Malformed("more than one attribute in an RDN")),
        Some(_) => return Err(NameError::Malformed("text after a quoted value")),
    };
    Ok(ParsedValue { text: text_of_value, after })
}

/// The byte that an escape stands for; the backslash is read already.
fn unescape(chars: &mut impl Iterator<Item = (usize, char)>) -> Result<u8, NameError> {
    let bad = NameError::Malformed("a backslash escapes neither a special character nor a byte");
    let (_, first) = chars.next().ok_or_else(|| bad.clone())?;
    if first == ' ' || SPECIAL.contains(first) {
        return Ok(first as u8);
    }
    let (_, second) = chars.next().ok_or_else(|| bad.clone())?;
    match (first.to_digit(16), second.to_digit(16)) {
        (Some(high), Some(low)) => Ok((high << 4 | low) as u8),
        _ => Err(bad),
    }
}

impl FromStr for X500Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

/// Corda's text, as in TLS subjects and message properties: `O=Alice Corp, L=Madrid, C=ES`. Values are quoted where Java's
/// `X500Principal.toString` quotes them; it leaves a value that begins *and* ends with a quotation mark bare, which could not
/// be read again, so that one differs.
impl fmt::Display for X500Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for ((attribute, _), value) in ATTRIBUTES.into_iter().zip(self.values()) {
            let Some(value) = value else { continue };
            write!(f, "{separator}{attribute}=")?;
            separator = ", ";
            let bare = !value.contains(|c| SPECIAL.contains(c))
                && !value.starts_with(' ')
                && !value.ends_with(' ')
                && !value.contains("  ");
            if bare {
                f.write_str(value)?;
            } else {
                write!(f, "\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> X500Name {
        X500Name::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// Text, and what Corda 4.10 made of it when it was run.
    #[test]
    fn names_that_corda_reads_print_as_corda_prints_them() {
        for (text, printed) in [
            ("O=Alice Corp, L=Madrid, C=ES", "O=Alice Corp, L=Madrid, C=ES"),
            ("C=ES,L=Madrid,O=Alice Corp", "O=Alice Corp, L=Madrid, C=ES"),
            ("O=Alice Corp,L=Madrid,C=ES,CN=x", "CN=x, O=Alice Corp, L=Madrid, C=ES"),
            ("o=Alice Corp, l=Madrid, c=ES", "O=Alice Corp, L=Madrid, C=ES"),
            ("CN=CN1, OU=OU1, O=Org1, L=Loc1, S=State1, C=US", "CN=CN1, OU=OU1, O=Org1, L=Loc1, ST=State1, C=US"),
            ("O=Alice=Bob, L=Madrid, C=ES", "O=\"Alice=Bob\", L=Madrid, C=ES"),
            ("O=Alice\\=Bob, L=Madrid, C=ES", "O=\"Alice=Bob\", L=Madrid, C=ES"),
            ("O=Alice#Bob, L=Madrid, C=ES", "O=\"Alice#Bob\", L=Madrid, C=ES"),
            ("O= Alice , L= Madrid , C= ES", "O=Alice, L=Madrid, C=ES"),
            ("O=Al\\C3\\A9ce, L=Madrid, C=ES", "O=Al\u{e9}ce, L=Madrid, C=ES"),
            ("O=\u{5c71}\u{7530}, L=Tokyo, C=JP", "O=\u{5c71}\u{7530}, L=Tokyo, C=JP"),
            ("O=Alice; L=Madrid; C=ES", "O=Alice, L=Madrid, C=ES"),
            ("O=Alice, L=Madrid, ST=, C=ES", "O=Alice, L=Madrid, ST=, C=ES"),
            ("O=\"Alice\", L=Madrid, C=ES", "O=Alice, L=Madrid, C=ES"),
            ("O='Alice', L=Madrid, C=ES", "O='Alice', L=Madrid, C=ES"),
            ("O=Alice & Co., L=Madrid, C=ES", "O=Alice & Co., L=Madrid, C=ES"),
        ] {
            assert_eq!(parse(text).to_string(), printed);
        }
    }

    /// Common names, and how Corda 4.10 printed them when it was run.
    #[test]
    fn values_are_quoted_as_java_quotes_them() {
        for (value, printed) in [
            ("a, b", "\"a, b\""),
            ("a+b", "\"a+b\""),
            ("a\"b", "\"a\\\"b\""),
            ("a\\b", "\"a\\\\b\""),
            ("a<b>", "\"a<b>\""),
            ("a;b", "\"a;b\""),
            ("x=y", "\"x=y\""),
            (" a", "\" a\""),
            ("a ", "\"a \""),
            ("a  b", "\"a  b\""),
            ("\u{a0}a", "\u{a0}a"),
            ("a*b", "a*b"),
            ("a'b", "a'b"),
            ("", ""),
        ] {
            let name = X500Name { common_name: Some(value.into()), ..parse("O=Alice, L=Madrid, C=ES") };
            assert_eq!(name.to_string(), format!("CN={printed}, O=Alice, L=Madrid, C=ES"));
            assert_eq!(parse(&name.to_string()), name);
        }
    }

    #[test]
    fn text_that_is_no_legal_name_is_refused() {
        for (text, why) in [
            ("", "without ="),
            ("O", "without ="),
            ("O=Alice, L=Madrid, C=ES,", "without ="),
            ("O=Alice, L=Madrid", "must include an C"),
            ("O=Alice, C=ES", "must include an L"),
            ("L=Madrid, C=ES", "must include an O"),
            ("O=Alice, L=Madrid, C=es", "country code"),
            ("O=Alice, L=Madrid, C=ESP", "country code"),
            ("O=Alice, O=Bob, L=Madrid, C=ES", "duplicate X.500 attribute O"),
            ("O=Alice, L=Madrid, ST=x, S=y, C=ES", "duplicate X.500 attribute ST"),
            ("O=Alice, L=Madrid, C=ES, DC=x", "DC is not supported"),
            ("O=Alice, L=Madrid, C=ES, EMAILADDRESS=x", "EMAILADDRESS is not supported"),
            ("O=Alice+Bob, L=Madrid, C=ES", "more than one attribute"),
            ("O=Alice+OU=Bob, L=Madrid, C=ES", "more than one attribute"),
            ("O=A, L=Madrid, C=ES", "two letters"),
            ("O=, L=Madrid, C=ES", "two letters"),
            ("O=\"Alice, Corp\", L=Madrid, C=ES", "not allowed"),
            ("O=Alice\\, Corp, L=Madrid, C=ES", "not allowed"),
            ("O=\\#Alice, L=Madrid, C=ES", "not allowed"),
            ("O=Alice\\\\Bob, L=Madrid, C=ES", "not allowed"),
            ("O=#0c05416c696365, L=Madrid, C=ES", "hexadecimal"),
            ("O=Alice<B>, L=Madrid, C=ES", "not escaped"),
            ("O=Alice  Corp, L=Madrid, C=ES", "white space"),
            ("O=\\ Alice, L=Madrid, C=ES", "white space"),
            ("O=Alice\\ , L=Madrid, C=ES", "white space"),
            ("O=Alice\u{a0}Corp, L=Madrid, C=ES", "white space"),
            ("O=Alice\tCorp, L=Madrid, C=ES", "control"),
            ("O=Ali\\0Ace, L=Madrid, C=ES", "control"),
            ("O=Alice, L=Madrid, C=ES, CN=\u{7}", "control"),
            ("O=Alice\0x, L=Madrid, C=ES", "control"),
            ("O=\"Alice, L=Madrid, C=ES", "not closed"),
            ("O=\"Alice\" x, L=Madrid, C=ES", "after a quoted"),
            ("O=Alice, L=Madrid\\", "backslash"),
            ("O=Alice, L=Mad\\rid, C=ES", "backslash"),
            ("O=Alice, L=\\ff, C=ES", "UTF-8"),
        ] {
            let error = X500Name::parse(text).expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(X500Name::parse(&"O=Alice, L=Madrid, C=ES,".repeat(1000)).is_err());
    }

    #[test]
    fn attributes_are_as_long_as_corda_allows() {
        let base = parse("CN=c, OU=u, O=Org, L=Loc, ST=s, C=ES");
        let long = |len: usize| Some("a".repeat(len));
        for (len, ok) in [(63, true), (64, false)] {
            assert_eq!(X500Name { common_name: long(len), ..base.clone() }.checked().is_ok(), ok);
            assert_eq!(X500Name { organisation_unit: long(len), ..base.clone() }.checked().is_ok(), ok);
            assert_eq!(X500Name { locality: "a".repeat(len), ..base.clone() }.checked().is_ok(), ok);
            assert_eq!(X500Name { state: long(len), ..base.clone() }.checked().is_ok(), ok);
        }
        assert!(X500Name { organisation: "a".repeat(127), ..base.clone() }.checked().is_ok());
        assert!(X500Name { organisation: "a".repeat(128), ..base.clone() }.checked().is_err());
        // Java counts this letter twice.
        assert!(X500Name { locality: "\u{1d400}".repeat(32), ..base }.checked().is_err());
    }

    #[test]
    fn der_is_that_of_certificates() {
        // Subject of the service identity's certificate in the vectors.
        let by_corda = "303a310b3009060355040613024348310f300d06035504070c065a7572696368311a3018060355040a0c114841204e6f\
            746172792053657276696365";
        let name = X500Name::from_der(&hex::decode(by_corda).expect("hex")).expect("a name");
        assert_eq!(name.to_string(), "O=HA Notary Service, L=Zurich, C=CH");

        // By Corda 4.10's `x500Principal`.
        let name = parse("CN=\"a, b\", O=Alice, L=Madrid, C=ES");
        let der = "303d310b3009060355040613024553310f300d06035504070c064d6164726964310e300c060355040a0c05416c696365310d300b06\
            035504030c04612c2062";
        assert_eq!(hex::encode(name.to_der()), der);
        assert_eq!(X500Name::from_der(&hex::decode(der).expect("hex")), Ok(name.clone()));
        // The same with a PrintableString, as Java's own encoder makes.
        let printable = der.replace("0c05416c", "1305416c");
        assert_eq!(X500Name::from_der(&hex::decode(printable).expect("hex")), Ok(name));

        for (why, from, to) in [
            ("unsupported string type", "0c05416c", "1405416c"), // TeletexString.
            ("ASN.1", "0c05416c69", "1305412a69"),               // An asterisk in a PrintableString.
            ("supported", "060355040a", "060355040d"),           // A description.
            ("duplicate", "060355040a", "0603550407"),
        ] {
            let error = X500Name::from_der(&hex::decode(der.replacen(from, to, 1)).expect("hex")).expect_err(why);
            assert!(error.to_string().contains(why), "{error}");
        }
        // { C=ES, L=Madrid } in one RDN.
        let multi = "301c311a3009060355040613024553300d060355040713064d6164726964";
        let error = X500Name::from_der(&hex::decode(multi).expect("hex")).expect_err("two attributes").to_string();
        assert!(error.contains("more than one attribute"), "{error}");
    }

    prop_compose! {
        fn value(len_max: usize)(text in "[a-zA-Z0-9 ,+=<>#;\\\\\"'\u{e9}\u{5c71}/.*]{0,40}") -> String {
            text.chars().take(len_max).collect()
        }
    }

    proptest! {
        #[test]
        fn names_print_and_encode_so_that_they_read_back(
            common_name in proptest::option::of(value(63)),
            organisation_unit in proptest::option::of(value(63)),
            organisation in "[a-z\u{e9}][a-z][a-zA-Z0-9=#'\u{5c71}]{0,60}",
            locality in value(63),
            state in proptest::option::of(value(63)),
            country in "[A-Z]{2}",
        ) {
            let name = X500Name { common_name, organisation_unit, organisation, locality, state, country };
            let name = name.checked().expect("generated by the rules");
            prop_assert_eq!(X500Name::parse(&name.to_string()), Ok(name.clone()));
            prop_assert_eq!(X500Name::from_der(&name.to_der()), Ok(name));
        }

        #[test]
        fn no_text_and_no_bytes_make_the_readers_panic(text in ".*", der in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = X500Name::parse(&text);
            let _ = X500Name::parse(&format!("O=Alice, L={text}, C=ES"));
            let _ = X500Name::from_der(&der);
        }
    }
}
