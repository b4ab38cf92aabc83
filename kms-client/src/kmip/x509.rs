//! How long a certificate is valid, which the TLS library checks but does not tell.
//!
//! Owns a walk through DER (ITU-T X.690) to the validity of a certificate (RFC 5280 section 4.1.2.5), pure and bounded: five
//! fields are passed over by their lengths. It must not judge anything else; signatures and names are the TLS library's.

/// From when to when a certificate is valid, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub from: u64,
    /// Last second.
    pub until: u64,
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The version, which certificates of version 1 do not have.
const VERSION: u8 = 0xA0;

impl Validity {
    /// Reads it; `None` for bytes that are no certificate, or years before 1970.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (outer, _) = field(certificate, SEQUENCE)?;
        let (mut rest, _) = field(outer, SEQUENCE)?;
        if rest.first() == Some(&VERSION) {
            rest = field(rest, VERSION)?.1;
        }
        // Serial number, algorithm of the signature, issuer.
        for tag in [INTEGER, SEQUENCE, SEQUENCE] {
            rest = field(rest, tag)?.1;
        }
        let (validity, _) = field(rest, SEQUENCE)?;
        let (from, rest) = time(validity)?;
        let (until, _) = time(rest)?;
        Some(Self { from, until })
    }

    /// Whole days from `now` to the end; negative when it is over.
    #[must_use]
    pub fn days_left(&self, now: u64) -> i64 {
        let seconds = i128::from(self.until) - i128::from(now);
        i64::try_from(seconds.div_euclid(86_400)).unwrap_or(i64::MAX)
    }
}

/// The value of the field that `bytes` begin with, which must have this tag, and what follows.
fn field(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7F);
        let (digits, rest) = rest.split_at_checked(count)?;
        // Four digits are 4 GiB; a longer length is nobody's certificate.
        if count == 0 || count > 4 {
            return None;
        }
        (digits.iter().fold(0, |sum, digit| (sum << 8) | usize::from(*digit)), rest)
    };
    let (value, rest) = rest.split_at_checked(length)?;
    (found == tag).then_some((value, rest))
}

/// A time, in either of its two forms, and what follows.
fn time(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let tag = *bytes.first()?;
    let (text, rest) = field(bytes, tag)?;
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (year, digits) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let short = number(digits.get(..2)?);
            // RFC 5280 section 4.1.2.5.1: below 50 is this century.
            (if short < 50 { 2000 + short } else { 1900 + short }, digits.get(2..)?)
        }
        (GENERALIZED_TIME, 14) => (number(digits.get(..4)?), digits.get(4..)?),
        _ => return None,
    };
    let part = |at: usize| digits.get(at..at + 2).map(number);
    let (month, day) = (part(0)?, part(2)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let seconds = part(4)? * 3600 + part(6)? * 60 + part(8)?;
    Some((days(year, month, day).checked_mul(86_400)?.checked_add(seconds)?, rest))
}

fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))
}

/// Days from 1970-01-01 to a day of the Gregorian calendar, with years that begin in March, so that the leap day is the
/// last one; 0 for days before.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year.saturating_sub(1) } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    (365 * year + year / 4 - year / 100 + year / 400 + of_year).saturating_sub(719_468)
}

/// Year, month and day of a day since 1970-01-01, the other way round.
pub(super) fn civil(days: u64) -> (i32, u8, u8) {
    let shifted = days + 719_468;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + shifted / 146_097 * 400 + u64::from(month <= 2);
    let small = |number: u64| u8::try_from(number).unwrap_or(1);
    (i32::try_from(year).unwrap_or(i32::MAX), small(month), small(day))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    fn certificate(from: (i32, u8, u8), until: (i32, u8, u8)) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["kms1".into()]).unwrap();
        params.not_before = date_time_ymd(from.0, from.1, from.2);
        params.not_after = date_time_ymd(until.0, until.1, until.2);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn both_forms_of_a_time() {
        let short = Validity::of(&certificate((2024, 2, 29), (2049, 12, 31))).unwrap();
        assert_eq!(short, Validity { from: 1_709_164_800, until: 2_524_521_600 });
        let long = Validity::of(&certificate((1999, 3, 1), (2050, 1, 1))).unwrap();
        assert_eq!(long, Validity { from: 920_246_400, until: 2_524_608_000 });
    }

    #[test]
    fn days_are_counted_down_and_below_zero() {
        let validity = Validity { from: 0, until: 10 * 86_400 };
        assert_eq!(validity.days_left(0), 10);
        assert_eq!(validity.days_left(86_401), 8);
        assert_eq!(validity.days_left(10 * 86_400), 0);
        assert_eq!(validity.days_left(10 * 86_400 + 1), -1);
    }

    #[test]
    fn days_and_dates_are_each_other() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
        for day in (0..1_000_000).step_by(61) {
            let (year, month, of_month) = civil(day);
            let year = u64::try_from(year).unwrap();
            assert_eq!(days(year, month.into(), of_month.into()), day);
        }
    }

    #[test]
    fn other_bytes_have_no_validity() {
        let good = certificate((2024, 1, 1), (2025, 1, 1));
        for length in 0..good.len() {
            assert_eq!(Validity::of(&good[..length]), None, "{length} bytes");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x80;
            let _ = Validity::of(&bad);
        }
        assert_eq!(Validity::of(b"-----BEGIN CERTIFICATE-----"), None);
        assert_eq!(Validity::of(&[0x30, 0x84, 0xFF, 0xFF, 0xFF, 0xFF]), None);
    }
}
