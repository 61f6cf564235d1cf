/* Names of days and months. strftime would follow the application's locale. */
#ifndef POOLSRV_CALENDAR_H
#define POOLSRV_CALENDAR_H

/* By tm_wday and tm_mon. */
extern const char calendar_days[7][4];
extern const char calendar_months[12][4];

#endif
