//! Colours of plots.

use crate::record::Method;

/// Where a drawing is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    /// A standalone file, with fixed colours on white.
    File,
    /// A part of a page that defines the custom properties of `page_css`.
    Page,
}

/// Purpose of a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Ink,
    Muted,
    Grid,
    Background,
    /// A colour of the palette.
    Series(usize),
}

/// Colours for light and dark backgrounds: Okabe and Ito's palette, which is readable with any
/// colour vision, without its yellow, which is too light for lines on white, and with a grey, a
/// brown and an olive.
const PALETTE: [(&str, &str); 10] = [
    ("#0072b2", "#56b4e9"),
    ("#e69f00", "#f0b429"),
    ("#009e73", "#2fc79a"),
    ("#cc79a7", "#e39bc4"),
    ("#7a7a7a", "#a8a8a8"),
    ("#d55e00", "#ff8a3d"),
    ("#56b4e9", "#9bd3f5"),
    ("#1b1b3a", "#dcdcf2"),
    ("#8c5a2b", "#c58b55"),
    ("#8a8d1f", "#c9cc5a"),
];

const INK: (&str, &str) = ("#1f2328", "#e6e8eb");
const MUTED: (&str, &str) = ("#59636e", "#9aa4af");
const GRID: (&str, &str) = ("#e3e6ea", "#30363d");
const BACKGROUND: (&str, &str) = ("#ffffff", "#14171c");

impl Theme {
    pub(crate) fn color(self, role: Role) -> String {
        match self {
            Self::File => match role {
                Role::Ink => INK.0.to_owned(),
                Role::Muted => MUTED.0.to_owned(),
                Role::Grid => GRID.0.to_owned(),
                Role::Background => BACKGROUND.0.to_owned(),
                Role::Series(idx) => PALETTE[idx % PALETTE.len()].0.to_owned(),
            },
            Self::Page => match role {
                Role::Ink => "var(--ink)".to_owned(),
                Role::Muted => "var(--muted)".to_owned(),
                Role::Grid => "var(--grid)".to_owned(),
                Role::Background => "var(--ground)".to_owned(),
                Role::Series(idx) => format!("var(--series-{})", idx % PALETTE.len()),
            },
        }
    }

    /// Returns CSS that defines the colours of [`Theme::Page`] for light and dark schemes.
    pub(crate) fn page_css() -> String {
        let named = [
            ("ink", INK),
            ("muted", MUTED),
            ("grid", GRID),
            ("ground", BACKGROUND),
        ];
        let scheme = |pick: fn((&'static str, &'static str)) -> &'static str| {
            let named = named.map(|(name, colors)| format!("--{name}:{};", pick(colors)));
            let series = PALETTE
                .iter()
                .enumerate()
                .map(|(idx, &colors)| format!("--series-{idx}:{};", pick(colors)));
            named.into_iter().chain(series).collect::<String>()
        };
        format!(
            ":root{{color-scheme:light dark;{}}}\n\
             @media (prefers-color-scheme:dark){{:root{{{}}}}}\n",
            scheme(|colors| colors.0),
            scheme(|colors| colors.1)
        )
    }
}

/// Assigns a colour to each method: its own if it is free, otherwise the next free one.
pub(crate) fn assign(methods: &[Method]) -> Vec<usize> {
    let mut taken = Vec::new();
    for &method in methods {
        let own = match method {
            Method::Vispec | Method::VispecLookup => 0,
            Method::Eagle2 | Method::Eagle2Lookup => 1,
            Method::Medusa | Method::MedusaLookup => 2,
            Method::Eagle3 | Method::Eagle3Lookup => 5,
            Method::PromptLookup => 3,
            Method::None => 4,
        };
        let free = (0..PALETTE.len()).map(|step| (own + step) % PALETTE.len());
        let choice = free.clone().find(|idx| !taken.contains(idx));
        taken.push(choice.unwrap_or(own));
    }
    taken
}
