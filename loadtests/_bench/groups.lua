-- Requests for /a, and each N-th for /b: N is in the address, 0 for none.
dofile(debug.getinfo(1, "S").source:match("@(.*/)") .. "report.lua")

local number = 0
local every

function request()
  every = every or tonumber(wrk.path:match("%d+"))
  number = number + 1
  return wrk.format("GET", every > 0 and number % every == 0 and "/b" or "/a")
end
