//! The part of Python's `strftime` that chat templates use, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

const WEEKDAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// A moment in UTC, in seconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Instant(u64);

impl Instant {
    pub(crate) fn now() -> Self {
        Self(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |elapsed| elapsed.as_secs()),
        )
    }
}

struct Date {
    year: u64,
    /// From 0.
    month: usize,
    /// From 1.
    day: u64,
}

fn days_in_month(year: u64, month: usize) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        1 if leap => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

fn date_of(mut days: u64) -> Date {
    let mut year = 1970;
    let mut month = 0;
    loop {
        let len = days_in_month(year, month);
        if days < len {
            return Date {
                year,
                month,
                day: days + 1,
            };
        }
        days -= len;
        month += 1;
        if month == MONTHS.len() {
            month = 0;
            year += 1;
        }
    }
}

/// Formats a moment; unknown directives are kept unchanged.
pub(crate) fn strftime(format: &str, Instant(seconds): Instant) -> String {
    let days = seconds / SECONDS_PER_DAY;
    let date = date_of(days);
    let of_day = seconds % SECONDS_PER_DAY;
    let hour = of_day / 3600;
    let weekday = WEEKDAYS[((days + 3) % 7) as usize]; // 1970 began on a Thursday
    let month = MONTHS[date.month];
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => out.push_str(&date.year.to_string()),
            Some('y') => out.push_str(&format!("{:02}", date.year % 100)),
            Some('m') => out.push_str(&format!("{:02}", date.month + 1)),
            Some('d') => out.push_str(&format!("{:02}", date.day)),
            Some('B') => out.push_str(month),
            Some('b') => out.push_str(&month[..3]),
            Some('A') => out.push_str(weekday),
            Some('a') => out.push_str(&weekday[..3]),
            Some('H') => out.push_str(&format!("{hour:02}")),
            Some('I') => out.push_str(&format!("{:02}", (hour + 11) % 12 + 1)),
            Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            Some('M') => out.push_str(&format!("{:02}", of_day / 60 % 60)),
            Some('S') => out.push_str(&format!("{:02}", of_day % 60)),
            Some('%') => out.push('%'),
            Some(other) => out.extend(['%', other]),
            None => out.push('%'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        let format = "%A %a %d %B %b %m %Y %y %H:%M:%S %I %p %% %Q %";
        let expected = "Thursday Thu 29 February Feb 02 2024 24 13:05:09 01 PM % %Q %";
        assert_eq!(strftime(format, Instant(1_709_211_909)), expected);
        assert_eq!(strftime("%Y-%m-%d %I", Instant(0)), "1970-01-01 12");
    }
}
