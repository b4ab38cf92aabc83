//! Progress of `qemu-img -p`: the parser of its output, and what the user sees of it.
//!
//! The parser is pure. On a terminal a bar is drawn, elsewhere a plain line is printed every tenth, with
//! `--json` nothing. Flow: bytes of stdout -> `Parser` -> hundredths of a percent -> `Meter`.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The whole, in the unit of the parser: hundredths of a percent.
pub(crate) const WHOLE: u32 = 10_000;

/// Longest text kept between parentheses; `100.00/100%` has 11 characters.
const MAX_TEXT: usize = 32;

/// Plain lines come at every tenth.
const STEP: u32 = WHOLE / 10;

/// Reads `(12.34/100%)` out of a byte stream, wherever the chunks are cut.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// What came since an opening parenthesis.
    text: Option<Vec<u8>>,
}

impl Parser {
    /// The last complete figure in `chunk`, in hundredths of a percent, 0 to 10,000.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Option<u32> {
        let mut last = None;
        for byte in chunk {
            match (byte, &mut self.text) {
                (b'(', _) => self.text = Some(Vec::new()),
                (b')', Some(text)) => {
                    last = figure(text).or(last);
                    self.text = None;
                }
                (_, Some(text)) if text.len() < MAX_TEXT => text.push(*byte),
                (_, text) => *text = None,
            }
        }
        last
    }
}

fn figure(text: &[u8]) -> Option<u32> {
    let number = std::str::from_utf8(text).ok()?.strip_suffix("/100%")?;
    // A few locales write a decimal comma.
    let (whole, rest) = number.trim().split_once(['.', ',']).unwrap_or((number.trim(), "00"));
    if rest.len() != 2 {
        return None;
    }
    let figure = whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(rest.parse().ok()?)?;
    (figure <= WHOLE).then_some(figure)
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// A bar that is drawn again and again.
    Bar,
    /// A line every tenth.
    Lines,
    /// Nothing.
    Quiet,
}

/// Shows progress of one copy on stderr.
#[derive(Debug)]
pub(crate) struct Meter {
    what: String,
    size: u64,
    bar: Option<ProgressBar>,
    lines: bool,
    shown: u32,
}

impl Meter {
    /// A meter of a copy of `size` bytes; `what` names it, for example `import web01/root`.
    pub(crate) fn new(style: Style, what: &str, size: u64) -> Self {
        let bar = (style == Style::Bar).then(|| bar(what, size));
        Self { what: what.to_owned(), size, bar, lines: style == Style::Lines, shown: 0 }
    }

    /// Shows that `figure` hundredths of a percent are done. Returns the plain line to print, if one is due.
    pub(crate) fn show(&mut self, figure: u32) -> Option<String> {
        if let Some(bar) = &self.bar {
            bar.set_position(share(self.size, figure));
        }
        if !self.lines || figure < self.shown + STEP {
            return None;
        }
        self.shown = figure - figure % STEP;
        Some(format!("{}: {}%", self.what, self.shown / 100))
    }

    /// Removes the bar, so that what is printed next stands alone.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn share(size: u64, figure: u32) -> u64 {
    let bytes = u128::from(size) * u128::from(figure) / u128::from(WHOLE);
    u64::try_from(bytes).unwrap_or(size)
}

fn bar(what: &str, size: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::stderr());
    let template = "{msg} [{wide_bar}] {percent}% {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} eta {eta}";
    // A template of our own that does not parse would be seen by the first test; the plain bar works too.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what.to_owned());
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_qemu_img_prints() {
        let mut parser = Parser::default();
        assert_eq!(parser.push(b"    (0.00/100%)\r"), Some(0));
        assert_eq!(parser.push(b"    (40.00/100%)\r    (80.12/100%)\r"), Some(8_012));
        assert_eq!(parser.push(b"    (100.0"), None);
        assert_eq!(parser.push(b"0/100%)\r\n"), Some(10_000));
        assert_eq!(parser.push(b"    (7,25/100%)\r"), Some(725));
    }

    #[test]
    fn other_text_is_no_progress() {
        let mut parser = Parser::default();
        for text in [
            "(x/100%)",
            "()",
            "(1.234/100%)",
            "(200.00/100%)",
            "1.00/100%)",
            "((((",
            "(-1.00/100%)",
        ] {
            assert_eq!(parser.push(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parser.push(&[b'('; 5]), None);
        assert_eq!(parser.push(&[b'1'; 4096]), None);
        assert_eq!(parser.push(b"(1.00/100%)"), Some(100));
    }

    #[test]
    fn lines_come_at_every_tenth() {
        let mut meter = Meter::new(Style::Lines, "import a/b", 1 << 30);
        let said: Vec<String> = [0, 500, 999, 1_000, 1_500, 3_999, 10_000, 10_000]
            .iter()
            .filter_map(|f| meter.show(*f))
            .collect();
        assert_eq!(said, ["import a/b: 10%", "import a/b: 30%", "import a/b: 100%"]);
        let mut quiet = Meter::new(Style::Quiet, "x", 1);
        assert_eq!(quiet.show(10_000), None);
    }

    #[test]
    fn the_bar_has_a_good_template() {
        let meter = Meter::new(Style::Bar, "import a/b", 1 << 30);
        let bar = meter.bar.as_ref().expect("a bar was asked for");
        bar.set_draw_target(ProgressDrawTarget::hidden());
        assert_eq!(bar.message(), "import a/b");
        assert_eq!(bar.length(), Some(1 << 30));
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(figure in 0_u32..=10_000, cut in 0_usize..16) {
            let text = format!("    ({}.{:02}/100%)\r", figure / 100, figure % 100);
            let (a, b) = text.as_bytes().split_at(cut.min(text.len()));
            let mut parser = Parser::default();
            let first = parser.push(a);
            prop_assert_eq!(parser.push(b).or(first), Some(figure));
        }

        #[test]
        fn shares_stay_inside(size: u64, figure in 0_u32..=10_000) {
            prop_assert!(share(size, figure) <= size);
        }
    }
}
