-- Sends every chest X-ray candidate that Orthanc stores to a CovidNet Node.
--
-- orthanc.json, with the node's own AE title, address and port:
--
--   "LuaScripts" : [ "/etc/orthanc/orthanc-autoroute.lua" ],
--   "DicomModalities" : { "covidnet" : [ "COVIDNET", "10.0.0.5", 11112 ] },
--   "JobsHistorySize" : 1000       -- how many ended jobs, failed ones too, Orthanc remembers
--
-- The node sends its results to Orthanc by itself: node.toml needs a [[destination]] with
-- Orthanc's AE title, address and DICOM port.
--
-- What is sent is chosen by SOP Class. The node's results (Structured Report, Secondary Capture)
-- are of other classes, even where their Modality says CR or DX, so they do not travel in a
-- circle. What comes from the node is not sent back in any case.

local NODE = 'covidnet'      -- the name in "DicomModalities"
local NODE_AET = 'COVIDNET'  -- the AE title with which the node calls Orthanc

local CLASSES = {
   ['1.2.840.10008.5.1.4.1.1.1']   = 'Computed Radiography',
   ['1.2.840.10008.5.1.4.1.1.1.1'] = 'Digital X-Ray, for presentation'
}

function OnStoredInstance(instanceId, tags, metadata, origin)
   if origin['RequestOrigin'] == 'DicomProtocol' and origin['RemoteAet'] == NODE_AET then
      return
   end

   if CLASSES[tags['SOPClassUID']] ~= nil then
      -- A job of its own for each image, run in the background. SendToModality() would be shorter,
      -- but what it cannot send it only logs; a failed job is kept and can be run again:
      -- POST /jobs/{id}/resubmit.
      local job = { Resources = { instanceId }, Asynchronous = true }
      RestApiPost('/modalities/' .. NODE .. '/store', DumpJson(job))
   end
end
