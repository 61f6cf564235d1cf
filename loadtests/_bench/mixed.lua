-- Nine requests of ten for /hello, the tenth for /sleep; latencies apart.
--
-- wrk keeps one histogram for all requests, and does not tell the response
-- which request it answers. So each carries its number in the query, the
-- application sends it back, and the time between is counted here.
dofile(debug.getinfo(1, "S").source:match("@(.*/)") .. "report.lua")

local ffi = require("ffi")
ffi.cdef [[
  typedef struct { long seconds, nanoseconds; } moment;
  int clock_gettime(int clock, moment *now);
]]
local MONOTONIC = 1
local moment = ffi.new("moment")

local function now()
  ffi.C.clock_gettime(MONOTONIC, moment)
  return tonumber(moment.seconds) * 1e6 + tonumber(moment.nanoseconds) / 1e3
end

-- Buckets grow by 1 %: that is the error of a quantile.
local STEP = math.log(1.01)

local number = 0
local started = {}
hello, sleep = {}, {} -- bucket -> requests; global, for thread:get

function request()
  number = number + 1
  started[number] = now()
  return wrk.format("GET", (number % 10 == 0 and "/sleep?" or "/hello?") .. number)
end

function response(status, headers, body)
  local which = tonumber(body)
  local since = which and started[which]
  if not since then return end -- not an answer of the application
  started[which] = nil
  local counts = which % 10 == 0 and sleep or hello
  local bucket = math.floor(math.log(math.max(now() - since, 1)) / STEP)
  counts[bucket] = (counts[bucket] or 0) + 1
end

local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
end

local function histogram(name)
  local found = {}
  for _, thread in ipairs(threads) do
    for bucket, count in pairs(thread:get(name)) do
      found[#found + 1] = string.format("[%.1f,%d]", math.exp((bucket + 0.5) * STEP), count)
    end
  end
  return string.format(',"%s":[%s]', name, table.concat(found, ","))
end

function done(summary, latency)
  summarize(summary, latency, histogram("hello") .. histogram("sleep"))
end
