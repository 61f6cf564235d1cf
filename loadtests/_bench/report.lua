-- The summary as one line of JSON; adds no work to a request. Times in us.
local quantiles = {50, 75, 90, 95, 99, 99.9}

function summarize(summary, latency, more)
  local found = {}
  for _, q in ipairs(quantiles) do
    found[#found + 1] = string.format('"%g":%d', q, latency:percentile(q))
  end
  local e = summary.errors
  io.write(string.format(
    '\nJSON {"requests":%d,"duration":%d,"bytes":%d,"quantiles":{%s},'
      .. '"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d%s}\n',
    summary.requests, summary.duration, summary.bytes, table.concat(found, ","),
    e.connect, e.read, e.write, e.status, e.timeout, more or ""))
end

function done(summary, latency)
  summarize(summary, latency)
end
