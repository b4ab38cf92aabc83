//! Sizes in bytes as people write and read them.
//!
//! Owns the grammar of `--size` and the rounding of tables; knows no disk. Binary units only: `20G` is
//! 20 * 2^30 bytes, because a disk of 20 * 10^9 bytes is not what anybody means who types it.

use thiserror::Error;

/// Powers of 1024 with a letter; `E` is left out because no disk may reach it.
const UNITS: [char; 5] = ['K', 'M', 'G', 'T', 'P'];

/// Most digits after the decimal point: enough for every size that is a whole number of bytes in use.
const MAX_DECIMALS: usize = 9;

/// Why a text is no size.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum SizeError {
    /// It does not follow the grammar.
    #[error(
        "'{0}' is not a size; accepted are bytes (512) and K, M, G, T, P in powers of 1024 (10K, 20G, 1.5T, 20GiB)"
    )]
    Grammar(String),
    /// Decimal units would be taken for binary ones.
    #[error("'{0}' has a decimal unit; sizes are in powers of 1024: write {1} or {1}iB")]
    Decimal(String, char),
    /// A fraction of a byte.
    #[error("'{0}' is not a whole number of bytes")]
    Fraction(String),
    /// Above 2^64 - 1 bytes.
    #[error("'{0}' is too large")]
    TooLarge(String),
    /// Nothing.
    #[error("a size of 0 makes no disk; accepted are 512 and more (512, 10K, 20G, 1.5T)")]
    Zero,
}

/// Bytes of `text`: a decimal number, then nothing, `B`, or one of `K M G T P` with or without `iB`.
pub(crate) fn parse_size(text: &str) -> Result<u64, SizeError> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let unit = parse_unit(text, suffix)?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let grammar = || SizeError::Grammar(text.to_owned());
    if whole.is_empty() || decimals.is_empty() || decimals.contains('.') {
        return Err(grammar());
    }
    if decimals.len() > MAX_DECIMALS {
        return Err(SizeError::Fraction(text.to_owned()));
    }
    let too_large = || SizeError::TooLarge(text.to_owned());
    let whole: u64 = whole.parse().map_err(|_| too_large())?;
    let decimals_value: u64 = decimals.parse().map_err(|_| grammar())?;
    let scale = 10_u128.pow(u32::try_from(decimals.len()).map_err(|_| grammar())?);
    let parts = u128::from(decimals_value) * u128::from(unit);
    if parts % scale != 0 {
        return Err(SizeError::Fraction(text.to_owned()));
    }
    let bytes = u128::from(whole) * u128::from(unit) + parts / scale;
    match u64::try_from(bytes) {
        Ok(0) => Err(SizeError::Zero),
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(too_large()),
    }
}

fn parse_unit(text: &str, suffix: &str) -> Result<u64, SizeError> {
    let upper = suffix.to_ascii_uppercase();
    if upper.is_empty() || upper == "B" {
        return Ok(1);
    }
    let mut letters = upper.chars();
    let power = letters.next().and_then(|letter| UNITS.iter().position(|u| *u == letter));
    let Some(power) = power else { return Err(SizeError::Grammar(text.to_owned())) };
    match letters.as_str() {
        "" | "IB" => Ok(1024_u64 << (10 * power)),
        "B" => Err(SizeError::Decimal(text.to_owned(), UNITS[power])),
        _ => Err(SizeError::Grammar(text.to_owned())),
    }
}

/// `bytes` in the largest fitting binary unit, with one decimal where it says something: `20 GiB`, `1.5 TiB`.
pub(crate) fn format_size(bytes: u64) -> String {
    let mut unit = 1_u128;
    let mut name = String::from("B");
    for letter in UNITS {
        // Rounded to tenths, 1023.96 is 1024.0 and belongs to the next unit.
        if tenths(bytes, unit) < 10_240 {
            break;
        }
        unit *= 1024;
        name = format!("{letter}iB");
    }
    let tenths = tenths(bytes, unit);
    match tenths % 10 {
        0 => format!("{} {name}", tenths / 10),
        rest => format!("{}.{rest} {name}", tenths / 10),
    }
}

fn tenths(bytes: u64, unit: u128) -> u128 {
    (u128::from(bytes) * 10 + unit / 2) / unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_what_people_write() {
        for (text, bytes) in [
            ("512", 512),
            ("512B", 512),
            ("10K", 10 << 10),
            ("10k", 10 << 10),
            ("20G", 20 << 30),
            ("20GiB", 20 << 30),
            ("1.5T", 3 << 39),
            ("0.5M", 1 << 19),
            ("16383P", 16383 << 50),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn refusals_say_why() {
        for text in
            ["", "G", ".5G", "5.G", "1.2.3G", "-1", "+1", "20 G", "20X", "0x10", "20GiBs", "20E"]
        {
            assert_eq!(parse_size(text), Err(SizeError::Grammar(text.to_owned())), "{text}");
        }
        assert_eq!(parse_size("20GB"), Err(SizeError::Decimal("20GB".into(), 'G')));
        assert_eq!(parse_size("0.1K"), Err(SizeError::Fraction("0.1K".into())));
        assert_eq!(parse_size("0.0000000001T"), Err(SizeError::Fraction("0.0000000001T".into())));
        assert_eq!(parse_size("16384P"), Err(SizeError::TooLarge("16384P".into())));
        assert_eq!(
            parse_size("99999999999999999999"),
            Err(SizeError::TooLarge("99999999999999999999".into()))
        );
        assert_eq!(parse_size("0"), Err(SizeError::Zero));
        let said = SizeError::Grammar("x".into()).to_string();
        assert!(said.contains("512") && said.contains("1.5T"), "{said}");
    }

    #[test]
    fn formats_in_binary_units() {
        for (bytes, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1 MiB"),
            (20 << 30, "20 GiB"),
            (3 << 39, "1.5 TiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(format_size(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn every_byte_count_reads_back(bytes in 1_u64..) {
            prop_assert_eq!(parse_size(&bytes.to_string()), Ok(bytes));
        }

        #[test]
        fn every_whole_unit_reads_back(count in 1_u64..1024, power in 0_usize..5, long in any::<bool>()) {
            let text = format!("{count}{}{}", UNITS[power], if long { "iB" } else { "" });
            prop_assert_eq!(parse_size(&text), Ok(count << (10 * (power + 1))));
        }

        #[test]
        fn any_text_is_a_size_or_an_error(text in ".{0,24}") {
            if let Ok(bytes) = parse_size(&text) {
                prop_assert!(bytes > 0);
            }
        }

        #[test]
        fn what_is_shown_is_near(bytes in 1_u64..) {
            let shown = format_size(bytes);
            if let Ok(back) = parse_size(&shown.replace(' ', "")) {
                prop_assert!(back.abs_diff(bytes) <= bytes / 19, "{} shown as {}", bytes, shown);
            }
        }
    }
}
