/* HTTP dates: see http_date.h. */
#include "protocol/http_date.h"

#include <string.h>

#include "common/calendar.h"
#include "protocol/lex.h"

#define DAY INT64_C(86400)
#define YEAR_0 (-INT64_C(719528) * DAY)     /* 1 January of year 0 */
#define YEAR_10000 (INT64_C(2932897) * DAY) /* and of year 10000 */
#define FAR_FUTURE 50                       /* years: RFC 9110 section 5.6.7 */

typedef struct {
    int64_t year;
    unsigned month; /* 1 to 12 */
    unsigned day, hour, minute, second;
} Moment;

/* Days from 1 January 1970 to a date. A year counts from its March here, so
 * that the day that may be missing is its last one. */
static int64_t
days_until(int64_t year, unsigned month, unsigned day)
{
    const int64_t y = month > 2 ? year : year - 1;
    const int64_t era = (y >= 0 ? y : y - 399) / 400;
    const int64_t of_era = y - era * 400;
    const int64_t of_year =
        (153 * (int64_t)(month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year -
           719468;
}

/* The reverse: no gmtime, which takes a lock to look for the time zone. */
static Moment
moment_at(int64_t seconds)
{
    const int64_t days = seconds / DAY - (seconds % DAY < 0);
    const unsigned rest = (unsigned)(seconds - days * DAY);
    const int64_t z = days + 719468;
    const int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    const int64_t of_era = z - era * 146097;
    const int64_t year =
        (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    const int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
    const unsigned m = (unsigned)((5 * of_year + 2) / 153);
    return (Moment){
        .year = year + era * 400 + (m >= 10),
        .month = m < 10 ? m + 3 : m - 9,
        .day = (unsigned)(of_year - (153 * (int64_t)m + 2) / 5) + 1,
        .hour = rest / 3600,
        .minute = rest / 60 % 60,
        .second = rest % 60,
    };
}

static void
write_two(char *to, unsigned number)
{
    to[0] = (char)('0' + number / 10 % 10);
    to[1] = (char)('0' + number % 10);
}

void
http_date_write(char *to, int64_t seconds)
{
    if (seconds < YEAR_0) {
        seconds = YEAR_0;
    }
    if (seconds >= YEAR_10000) {
        seconds = YEAR_10000 - 1;
    }
    const Moment m = moment_at(seconds);
    /* 1 January 1970 was a Thursday. */
    const int64_t days = seconds / DAY - (seconds % DAY < 0);
    memcpy(to, "Sun, 06 Nov 1994 08:49:37 GMT", HTTP_DATE_SIZE);
    memcpy(to, calendar_days[((days + 4) % 7 + 7) % 7], 3);
    write_two(to + 5, m.day);
    memcpy(to + 8, calendar_months[m.month - 1], 3);
    write_two(to + 12, (unsigned)m.year / 100);
    write_two(to + 14, (unsigned)m.year % 100);
    write_two(to + 17, m.hour);
    write_two(to + 20, m.minute);
    write_two(to + 23, m.second);
}

/* ------------------------------------------------------------------------
 * Reading */

typedef struct {
    const char *at, *end;
} Reader;

static bool
take_text(Reader *r, const char *text)
{
    const size_t size = strlen(text);
    if ((size_t)(r->end - r->at) < size || memcmp(r->at, text, size) != 0) {
        return false;
    }
    r->at += size;
    return true;
}

/* So many digits, no more and no less. */
static bool
take_number(Reader *r, int digits, unsigned *number)
{
    *number = 0;
    for (; digits > 0; digits--) {
        if (r->at == r->end || !is_digit(*r->at)) {
            return false;
        }
        *number = *number * 10 + (unsigned)(*r->at++ - '0');
    }
    return true;
}

static bool
take_month(Reader *r, unsigned *month)
{
    for (unsigned i = 0; i < 12; i++) {
        if (take_text(r, calendar_months[i])) {
            *month = i + 1;
            return true;
        }
    }
    return false;
}

static bool
take_time(Reader *r, Moment *m)
{
    return take_number(r, 2, &m->hour) && take_text(r, ":") &&
           take_number(r, 2, &m->minute) && take_text(r, ":") &&
           take_number(r, 2, &m->second);
}

/* Which day of the week it was is not compared: the date says it. */
static bool
take_short_day(Reader *r)
{
    for (int i = 0; i < 7; i++) {
        if (take_text(r, calendar_days[i])) {
            return true;
        }
    }
    return false;
}

static bool
take_long_day(Reader *r)
{
    static const char *const names[] = {"Sunday",    "Monday",   "Tuesday",
                                        "Wednesday", "Thursday", "Friday",
                                        "Saturday"};
    for (int i = 0; i < 7; i++) {
        if (take_text(r, names[i])) {
            return true;
        }
    }
    return false;
}

/* Sun, 06 Nov 1994 08:49:37 GMT */
static bool
take_imf_fixdate(Reader *r, Moment *m)
{
    unsigned year;
    if (!(take_short_day(r) && take_text(r, ", ") &&
          take_number(r, 2, &m->day) && take_text(r, " ") &&
          take_month(r, &m->month) && take_text(r, " ") &&
          take_number(r, 4, &year) && take_text(r, " ") && take_time(r, m) &&
          take_text(r, " GMT"))) {
        return false;
    }
    m->year = year;
    return true;
}

/* Sunday, 06-Nov-94 08:49:37 GMT; a year that would be more than 50 years from
 * now is the last one with these digits. */
static bool
take_rfc850_date(Reader *r, Moment *m, int64_t now)
{
    unsigned year;
    if (!(take_long_day(r) && take_text(r, ", ") &&
          take_number(r, 2, &m->day) && take_text(r, "-") &&
          take_month(r, &m->month) && take_text(r, "-") &&
          take_number(r, 2, &year) && take_text(r, " ") && take_time(r, m) &&
          take_text(r, " GMT"))) {
        return false;
    }
    const int64_t this_year = moment_at(now).year;
    m->year = this_year - this_year % 100 + year;
    if (m->year > this_year + FAR_FUTURE) {
        m->year -= 100;
    }
    return true;
}

/* Sun Nov  6 08:49:37 1994 */
static bool
take_asctime_date(Reader *r, Moment *m)
{
    unsigned year;
    if (!(take_short_day(r) && take_text(r, " ") && take_month(r, &m->month) &&
          take_text(r, " ") &&
          (take_text(r, " ") ? take_number(r, 1, &m->day)
                             : take_number(r, 2, &m->day)) &&
          take_text(r, " ") && take_time(r, m) && take_text(r, " ") &&
          take_number(r, 4, &year))) {
        return false;
    }
    m->year = year;
    return true;
}

/* Is there such a day, and such a time on it? */
static bool
exists(const Moment *m)
{
    if (m->day < 1 || m->hour > 23 || m->minute > 59 || m->second > 60) {
        return false; /* 60: a leap second */
    }
    const int64_t next = m->month == 12 ? days_until(m->year + 1, 1, 1)
                                        : days_until(m->year, m->month + 1, 1);
    return days_until(m->year, m->month, m->day) < next;
}

bool
http_date_read(const char *text, size_t size, int64_t now, int64_t *seconds)
{
    const Reader start = {.at = text, .end = text + size};
    Reader r = start;
    Moment m;
    bool found = take_imf_fixdate(&r, &m);
    if (!found) {
        r = start;
        found = take_rfc850_date(&r, &m, now);
    }
    if (!found) {
        r = start;
        found = take_asctime_date(&r, &m);
    }
    if (!found || r.at != r.end || !exists(&m)) {
        return false;
    }
    *seconds = days_until(m.year, m.month, m.day) * DAY + m.hour * 3600 +
               m.minute * 60 + m.second;
    return true;
}
