# Runs COMMAND (a list), which has to end with exit code CODE within SECONDS and to say TEXT exactly once.
string(TIMESTAMP start "%s")
execute_process(COMMAND ${COMMAND} RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output TIMEOUT 60)
string(TIMESTAMP end "%s")
math(EXPR seconds "${end} - ${start}")
string(REPLACE ";" "," one_element "${output}")  # a match with a semicolon would be two elements of the list
string(REPLACE ";" "," text "${TEXT}")
string(REGEX MATCHALL "${text}" found "${one_element}")
list(LENGTH found times)
if(NOT code STREQUAL CODE OR NOT times EQUAL 1 OR seconds GREATER SECONDS)
  message(FATAL_ERROR "exit code ${code} (want ${CODE}), '${TEXT}' said ${times} times, after ${seconds} s:\n${output}")
endif()
