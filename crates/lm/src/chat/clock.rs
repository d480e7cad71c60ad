//! A date and time for templates, formatted as C's `strftime` does in the C locale.

use minijinja::{Error, ErrorKind};

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
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A local date and time of the Gregorian calendar; who renders a chat reads the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateTime {
    /// Year, such as 2026.
    pub year: i32,
    /// Month, 1 to 12.
    pub month: u32,
    /// Day of the month, 1 to 31.
    pub day: u32,
    /// Hour, 0 to 23.
    pub hour: u32,
    /// Minute, 0 to 59.
    pub minute: u32,
    /// Second, 0 to 60.
    pub second: u32,
}

impl DateTime {
    pub(super) fn format(self, pattern: &str) -> Result<String, Error> {
        let mut out = String::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut code = chars.next();
            // glibc: no padding
            let bare = code == Some('-');
            if bare {
                code = chars.next();
            }
            let text = match code {
                Some(code) => self.field(code)?,
                None => return Err(unknown("%")),
            };
            out.push_str(if bare { unpadded(&text) } else { &text });
        }
        Ok(out)
    }

    fn field(self, code: char) -> Result<String, Error> {
        let month = MONTHS[(self.month.clamp(1, 12) - 1) as usize];
        let day = DAYS[self.weekday()];
        let hour12 = (self.hour + 11) % 12 + 1;
        Ok(match code {
            'Y' => self.year.to_string(),
            'y' => format!("{:02}", self.year.rem_euclid(100)),
            'm' => format!("{:02}", self.month),
            'd' => format!("{:02}", self.day),
            'e' => format!("{:2}", self.day),
            'H' => format!("{:02}", self.hour),
            'I' => format!("{hour12:02}"),
            'M' => format!("{:02}", self.minute),
            'S' => format!("{:02}", self.second),
            'p' => if self.hour < 12 { "AM" } else { "PM" }.to_owned(),
            'B' => month.to_owned(),
            'b' | 'h' => month[..3].to_owned(),
            'A' => day.to_owned(),
            'a' => day[..3].to_owned(),
            'j' => format!("{:03}", self.day_of_year()),
            'F' => self.format("%Y-%m-%d")?,
            'T' => self.format("%H:%M:%S")?,
            'D' => self.format("%m/%d/%y")?,
            '%' => "%".to_owned(),
            other => return Err(unknown(&format!("%{other}"))),
        })
    }

    /// 0 for Sunday, by Sakamoto's method.
    fn weekday(self) -> usize {
        const SHIFT: [i32; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let month = self.month.clamp(1, 12);
        let year = if month < 3 { self.year - 1 } else { self.year };
        let days = year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        (days + SHIFT[(month - 1) as usize] + self.day as i32).rem_euclid(7) as usize
    }

    fn day_of_year(self) -> u32 {
        const BEFORE: [u32; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let month = self.month.clamp(1, 12);
        let leap = self.year.rem_euclid(4) == 0 && (self.year.rem_euclid(100) != 0 || self.year.rem_euclid(400) == 0);
        BEFORE[(month - 1) as usize] + self.day + u32::from(leap && month > 2)
    }
}

fn unpadded(text: &str) -> &str {
    let bare = text.trim_start_matches(['0', ' ']);
    if bare.is_empty() && !text.is_empty() { &text[text.len() - 1..] } else { bare }
}

fn unknown(code: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("strftime_now does not know `{code}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_as_python_does() {
        // datetime(2026, 11, 21, 6, 4, 9).strftime(…)
        let now = DateTime { year: 2026, month: 11, day: 21, hour: 6, minute: 4, second: 9 };
        assert_eq!(now.format("%d %b %Y").unwrap(), "21 Nov 2026");
        assert_eq!(
            now.format("%A %a %B %j %H:%M:%S %I %p %y %-H 100%%").unwrap(),
            "Saturday Sat November 325 06:04:09 06 AM 26 6 100%"
        );
        let leap = DateTime { year: 2024, month: 3, day: 1, hour: 0, minute: 0, second: 0 };
        assert_eq!(leap.format("%a %j %-M %F %I").unwrap(), "Fri 061 0 2024-03-01 12");
        assert!(now.format("%Q").is_err() && now.format("%").is_err());
    }
}
