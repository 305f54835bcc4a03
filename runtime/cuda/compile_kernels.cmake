# Runs COMMAND and keeps what it prints in REPORT; prints it where the command fails.
execute_process(COMMAND ${COMMAND} RESULT_VARIABLE result OUTPUT_VARIABLE text ERROR_VARIABLE text)
file(WRITE ${REPORT} "${text}")
if(NOT result EQUAL 0)
  message(FATAL_ERROR "${text}")
endif()
