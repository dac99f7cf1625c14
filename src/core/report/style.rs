//! How texts are set: colours and signs, and what they become where the terminal has none.

/// What a text's reader can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextOptions {
    /// ANSI colours; off for NO_COLOR and where stdout is no terminal (promise 56).
    pub color: bool,
    /// Only ASCII.
    pub ascii: bool,
    /// Columns; long texts are wrapped at it. At least 60.
    pub width: usize,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self {
            color: false,
            ascii: false,
            width: 100,
        }
    }
}

/// What a piece of text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// It holds.
    Good,
    /// It does not.
    Bad,
    /// It needs eyes.
    Warn,
    /// Beside the point.
    Dim,
    /// A heading.
    Strong,
}

impl TextOptions {
    /// Sets a text in a style.
    pub fn paint(self, style: Style, text: &str) -> String {
        if !self.color || text.is_empty() {
            return text.to_owned();
        }
        let code = match style {
            Style::Good => "32",
            Style::Bad => "31",
            Style::Warn => "33",
            Style::Dim => "2",
            Style::Strong => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// The sign before something that holds, does not, or needs eyes.
    pub fn sign(self, style: Style) -> String {
        let sign = match (style, self.ascii) {
            (Style::Good, false) => "✓",
            (Style::Good, true) => "+",
            (Style::Bad, false) => "✗",
            (Style::Bad, true) => "x",
            (Style::Warn, _) => "!",
            (Style::Dim | Style::Strong, false) => "·",
            (Style::Dim | Style::Strong, true) => "-",
        };
        self.paint(style, sign)
    }

    /// A text without anything a terminal would act on, and in ASCII where only that can be shown.
    pub fn clean(self, text: &str) -> String {
        let shown = |c: char| match c {
            c if c.is_control() => ' ',
            'µ' if self.ascii => 'u',
            '…' if self.ascii => '~',
            '×' if self.ascii => 'x',
            c if self.ascii && !c.is_ascii() => '?',
            c => c,
        };
        text.chars().map(shown).collect()
    }
}
