//! A moment as the X-Greylist field has it.

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `Sun, 22 Nov 2026 21:34:50 UTC`.
pub fn text(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let weekday = DAYS[usize::try_from(days % 7).unwrap_or(0)];
    let month = MONTHS[month];
    format!("{weekday}, {day:02} {month} {year} {:02}:{:02}:{:02} UTC", time / 3600, time / 60 % 60, time % 60)
}

/// Year, month (from 0) and day of a day counted from 1970-01-01.
fn civil(mut days: u64) -> (u64, usize, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    // Whole cycles of the calendar first, so that no clock makes this long.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    while let Some(rest) = days.checked_sub(if leap(year) { 366 } else { 365 }) {
        (days, year) = (rest, year + 1);
    }
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while let Some(rest) = days.checked_sub(lengths[month]) {
        (days, month) = (rest, month + 1);
    }
    (year, month, days + 1)
}
